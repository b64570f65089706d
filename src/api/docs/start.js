// Shows the document that lies beside the page. A pasted key stays in the memory of this page.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
  displayOperationId: true,
  displayRequestDuration: true,
});
