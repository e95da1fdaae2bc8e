"""CRM Bridge measured beside what people would use instead: see docs/performance.md."""
