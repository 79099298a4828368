"""The images that guests start from.

`store` hands them out and builds those that are missing; `micro` builds the embedded one from
packages that `packages` downloads, with the archive format of `cpio`.
"""
