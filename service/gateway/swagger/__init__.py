"""The API's page at `/docs`: Swagger UI over the OpenAPI document, without any other host."""
