"""What `bench.overhead` measures side by side: one model, the servers that put it on the wire, and a client of each."""
