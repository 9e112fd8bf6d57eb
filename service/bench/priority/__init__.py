"""The latency of requests beside a running stream, and the throughput of the stream."""
