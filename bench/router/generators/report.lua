-- Print what a run found as one line of JSON, for bench.router.generators.wrk.
function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      'RESULT {"requests":%d,"seconds":%.6f,"p50":%.6f,"p99":%.6f,"failed":%d}\n',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
      e.connect + e.read + e.write + e.status + e.timeout))
end
