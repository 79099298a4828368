"""What runs the guests: `qemu` for real ones, `memory` for tests and demonstrations.

Both provide `hero.compute.interfaces.IHypervisor` and pass the same suite,
`hero.testing.make_ihypervisor_tests`. In `qemu`, each guest is a QEMU process in a session of its
own that outlives ours. `qemu_command` decides its arguments, `process` starts and finds it,
`run_record` remembers it on disk, `qmp` speaks to it; `accelerator` finds out whether KVM works.
"""
