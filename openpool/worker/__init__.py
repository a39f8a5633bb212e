"""The worker process: joins a pool and transcodes with FFmpeg."""
