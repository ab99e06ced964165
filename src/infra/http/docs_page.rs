//! `GET /openapi.json`, and `GET /docs`: a page to read the document and to try it. `GET /` redirects to the page.
//!
//! The page is Swagger UI, embedded in the binary, with a script that leads a newcomer from one role's page to the other's.
//! It connects to its own origin only.

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpResponse, web};

use crate::infra::http::ApiError;
use crate::infra::http::errors_page::errors_endpoint;
use crate::infra::http::openapi::{Endpoint, OpenApi};
use crate::kernel::Role;

/// The page may load and call its own origin only.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of the page: name, media type, whether it is gzipped, and content.
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

/// Where the page of the other role is.
pub struct OtherRole<'a> {
    pub role: Role,
    /// Its public URL, if configured.
    pub url: Option<&'a str>,
    /// Its port on the same host, used without a URL.
    pub port: &'a str,
}

/// The document and the page, ready to be served.
#[derive(Clone)]
pub struct DocsPage {
    document: web::Bytes,
    page: web::Bytes,
}

impl DocsPage {
    /// # Errors
    /// When the document cannot be serialized, which is a bug.
    pub fn try_new(document: &OpenApi, other: &OtherRole<'_>) -> Result<Self, serde_json::Error> {
        let page = include_str!("docs/page.html")
            .replace("{title}", &escaped(&document.info.title))
            .replace("{other}", other.role.as_str())
            .replace("{other-url}", &escaped(other.url.unwrap_or_default()))
            .replace("{other-port}", &escaped(other.port));
        // With the line end that every body has, or each response would copy the document to add one.
        let document = serde_json::to_string(document)? + "\n";
        Ok(Self { document: document.into(), page: page.into() })
    }

    /// Adds what [`Self::endpoints`] need, the files of the page, and the redirect from `/` to it.
    pub fn routes(&self, app: &mut web::ServiceConfig) {
        app.app_data(web::Data::new(self.clone()))
            .service(web::resource("/").route(web::get().to(home)))
            .service(web::resource("/docs/{file}").route(web::get().to(file)));
    }

    /// The document, the page, and the page of the error codes.
    pub fn endpoints<Api: 'static>() -> [Endpoint<Api>; 3] {
        [Endpoint::undocumented("/openapi.json", document), Endpoint::undocumented("/docs", page), errors_endpoint()]
    }
}

/// Escapes a text for an attribute or an element.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// 302, because `/` may become something else; a browser must not remember where it led.
async fn home() -> HttpResponse {
    HttpResponse::Found().insert_header((header::LOCATION, "/docs")).finish()
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

/// Gzipped files are sent as they are: only browsers load them, and all browsers accept gzip.
async fn file(name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let found = FILES.iter().find(|(file, ..)| *file == name.as_str());
    let (_, media_type, compressed, content) = found.ok_or_else(ApiError::no_route)?;
    let mut response = HttpResponse::Ok();
    if *compressed {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.content_type(*media_type).body(*content))
}
