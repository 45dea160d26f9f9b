"""The routes of the HTTP API by topic; each asks the service and knows nothing of what lies behind it."""
