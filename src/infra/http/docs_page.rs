//! `GET /openapi.json`, and `GET /docs`: a page to read it and to try it.
//!
//! The page is Swagger UI, out of the binary alone, and a few lines of ours that lead a newcomer from one role's page to
//! the other's. It talks to its own origin only, so no other needs to be let in.

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpResponse, web};
use utoipa::openapi::{ObjectBuilder, Type};

use crate::infra::http::ApiError;
use crate::infra::http::openapi::{Endpoint, OpenApi};
use crate::kernel::Role;

/// What the page may do: run and show what came with it, and talk to where it came from.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files that the page loads: name, media type, whether it is compressed, and content.
const FILES: [(&str, &str, bool, &[u8]); 4] = [
    ("page.css", "text/css; charset=utf-8", false, include_bytes!("docs/page.css")),
    ("page.js", "text/javascript; charset=utf-8", false, include_bytes!("docs/page.js")),
    ("swagger-ui.css", "text/css; charset=utf-8", true, include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"))),
    (
        "swagger-ui.js",
        "text/javascript; charset=utf-8",
        true,
        include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz")),
    ),
];

/// Where the other role's page is.
pub struct OtherRole<'a> {
    /// Which role it is.
    pub role: Role,
    /// Its address, if the settings name it.
    pub url: Option<&'a str>,
    /// Where it is on this host, if they do not.
    pub port: &'a str,
}

/// The document and the page, as they are served.
#[derive(Clone)]
pub struct DocsPage {
    document: web::Bytes,
    page: web::Bytes,
}

impl DocsPage {
    /// Of this document.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which is our own fault.
    pub fn try_new(document: &OpenApi, other: &OtherRole<'_>) -> Result<Self, serde_json::Error> {
        let page = include_str!("docs/page.html")
            .replace("{title}", &escaped(&document.info.title))
            .replace("{other}", other.role.as_str())
            .replace("{other-url}", &escaped(other.url.unwrap_or_default()))
            .replace("{other-port}", &escaped(other.port));
        Ok(Self { document: serde_json::to_vec(document)?.into(), page: page.into_bytes().into() })
    }

    /// Adds what [`Self::endpoints`] need, and the files of the page.
    pub fn routes(&self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::new(self.clone())).service(web::resource("/docs/{file}").route(web::get().to(file)));
    }

    /// The document and the page.
    pub fn endpoints<Api: 'static>() -> [Endpoint<Api>; 2] {
        let json = ObjectBuilder::new().schema_type(Type::Object);
        let html = ObjectBuilder::new().schema_type(Type::String);
        [
            Endpoint::get("/openapi.json", document, "getDocument", "Get this OpenAPI document")
                .tag("documentation")
                .returns_as("application/json", json, "OpenAPI 3.1."),
            Endpoint::get("/docs", page, "getDocsPage", "Interactive API documentation")
                .tag("documentation")
                .returns_as("text/html", html, "An HTML page."),
        ]
    }
}

/// A text inside an attribute or an element.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

async fn document(docs: web::Data<DocsPage>) -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(docs.document.clone())
}

async fn page(docs: web::Data<DocsPage>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(docs.page.clone())
}

/// A file is sent as it lies in the binary: browsers, which alone load these, all read gzip.
async fn file(name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let found = FILES.iter().find(|(file, ..)| *file == name.as_str());
    let (_, media_type, compressed, content) = found.ok_or_else(ApiError::no_route)?;
    let mut response = HttpResponse::Ok();
    if *compressed {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.content_type(*media_type).body(*content))
}
