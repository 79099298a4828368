"""Virtual machines of one node.

A call enters at `service`, which looks things up and hands them to `actor`: it changes one VM at
a time, writing each step into `store` before taking it, by way of a `hypervisor` and the `images`.
`reconciler` decides, as a pure function, what is to be done where the records and the guests that
are seen disagree; `loop` asks it at start and every few seconds; `recovery` ends the operations
that a crash interrupted. `lifecycle` says which state may follow which, `slices` cuts the machine
up. `heartbeat` and `membership` keep the explorer informed. `runtime` puts it all together for
`tap`.
"""
