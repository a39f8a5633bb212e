"""What a worker can do besides transcoding: each runtime is one small file of one obvious shape.

`base` is that shape, `catalogue` the list of built-ins, `host` runs each in a process of its own.
To add one, read docs/how-to/add-a-runtime.md.
"""
