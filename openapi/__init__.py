"""docs/openapi.json: made of the routes of template.yaml, of the functions' models, and of what was really answered."""
