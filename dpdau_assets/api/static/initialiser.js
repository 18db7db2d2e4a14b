// Shows the document that the page names. Nothing is kept in the browser, and nothing is asked of another host: the
// badge of an online validator, which swagger-ui shows otherwise, is off.
"use strict";

window.addEventListener("load", () => {
  const place = document.getElementById("swagger-ui");
  window.SwaggerUIBundle({
    url: place.dataset.document,
    domNode: place,
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    displayOperationId: true,
    persistAuthorization: false,
    validatorUrl: null,
    presets: [window.SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
});
