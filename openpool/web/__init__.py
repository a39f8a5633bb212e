"""What people see: REST API, dashboard and metrics. It reads and shows; it decides nothing."""
