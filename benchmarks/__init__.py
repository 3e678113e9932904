"""What the service is measured with: seeded files, a raw COPY beside each load, memory, and the API's answer times.

`python -m benchmarks --help` lists the measurements; docs/performance.md says what came out.
"""
