"use strict";
// The description of the service, drawn by Swagger UI from /openapi.json; nothing is fetched from elsewhere.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
