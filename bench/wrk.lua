-- One Invoke request, repeated; the figures as key=value lines once done.

wrk.method = "POST"
wrk.body = os.getenv("BENCH_PAYLOAD")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Amz-Invocation-Type"] = os.getenv("BENCH_INVOCATION_TYPE")

function done(summary, latency, _)
   local figures = {
      requests = summary.requests,
      duration_us = summary.duration,
      p50_us = latency:percentile(50),
      p99_us = latency:percentile(99),
      errors_connect = summary.errors.connect,
      errors_read = summary.errors.read,
      errors_write = summary.errors.write,
      errors_status = summary.errors.status,
      errors_timeout = summary.errors.timeout,
   }
   for name, value in pairs(figures) do
      io.write(string.format("%s=%d\n", name, value))
   end
end
