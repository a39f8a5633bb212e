"""What people see: REST API, dashboard and metrics. Reads the store and the live pool, decides nothing."""
