curl http://localhost:9090/health
# {"status":"healthy","pipelines_owned":3,"uptime_seconds":42}
