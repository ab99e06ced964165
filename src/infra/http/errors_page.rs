//! `GET /docs/errors`: every error code, what it means and what to do, each at a fragment of its own. Error responses link
//! to it.
//!
//! The page shows the table of `docs/api.md`, so the two cannot differ.

use actix_web::HttpResponse;
use actix_web::http::header::{self, ContentType};

use crate::infra::http::api_error::ERRORS_PAGE;
use crate::infra::http::openapi::Endpoint;

const API_REFERENCE: &str = include_str!("../../../docs/api.md");
/// The page loads its style sheet only.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn errors_endpoint<Api: 'static>() -> Endpoint<Api> {
    let page = include_str!("docs/errors.html").replace("{codes}", &sections(API_REFERENCE));
    Endpoint::undocumented(ERRORS_PAGE, move || {
        let page = page.clone();
        async move {
            HttpResponse::Ok()
                .content_type(ContentType::html())
                .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
                .insert_header((header::REFERRER_POLICY, "no-referrer"))
                .body(page)
        }
    })
}

/// One section per row of the table of codes.
fn sections(markdown: &str) -> String {
    let table = markdown.split("<!-- codes:begin -->").nth(1).and_then(|rest| rest.split("<!-- codes:end -->").next());
    let rows = table.unwrap_or_default().lines().filter_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [status, code, meaning, what_to_do] = cells.try_into().ok()?;
        let code = code.strip_prefix('`')?.strip_suffix('`')?;
        let advice = if what_to_do.is_empty() { String::new() } else { format!("<p>To do: {}.</p>", html(what_to_do)) };
        Some(format!("<section id=\"{code}\"><h2>{code}</h2><p>{status}: {}.</p>{advice}</section>\n", html(meaning)))
    });
    rows.collect()
}

/// Escaped, with the parts between backquotes as code.
fn html(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let parts = escaped.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table_is_a_section_with_its_code_as_the_fragment() {
        let page = "a\n<!-- codes:begin -->\n| status | code | meaning | what to do |\n|---|---|---|---|\n\
                    | 429 | `RATE_LIMITED` | too many & <more> | wait for `Retry-After` |\n\
                    | 404 | `GONE` | no | |\n<!-- codes:end -->\n| 1 | `NOT` | in | it |\n";
        let expected = "<section id=\"RATE_LIMITED\"><h2>RATE_LIMITED</h2><p>429: too many &amp; &lt;more&gt;.</p>\
                        <p>To do: wait for <code>Retry-After</code>.</p></section>\n\
                        <section id=\"GONE\"><h2>GONE</h2><p>404: no.</p></section>\n";
        assert_eq!(sections(page), expected);
    }
}
