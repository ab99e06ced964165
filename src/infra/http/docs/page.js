// The page around Swagger UI: the link to the other role's page, and the access token of the last response.
"use strict";

const { otherUrl, otherPort } = document.body.dataset;
// Without a configured address, the other role is assumed to be on this host.
const otherOrigin = otherUrl || `${location.protocol}//${location.hostname}:${otherPort}`;
for (const id of ["other", "next"]) {
  document.getElementById(id).href = `${otherOrigin}/docs`;
}

const token = document.getElementById("token");
token.addEventListener("focus", () => token.select());
document.getElementById("copy").addEventListener("click", async () => {
  token.select();
  // The clipboard needs a secure context; elsewhere the selected token can be copied by hand.
  await navigator.clipboard?.writeText(token.value);
});

/** Shows the access token of a response, so that users need not find it in the JSON. */
function showToken(response) {
  const accessToken = response.body?.accessToken ?? response.obj?.accessToken;
  if (accessToken) {
    token.value = accessToken;
    document.getElementById("handed-out").hidden = false;
  }
  return response;
}

window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#document",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  responseInterceptor: showToken,
  tryItOutEnabled: true,
  validatorUrl: null, // otherwise the page would send the document's address to a third party
});
