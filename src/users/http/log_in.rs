//! `POST /v1/auth/login`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use slog::{Logger, warn};
use utoipa::ToSchema;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, JsonFields, RequestContext, TextLimiter, read_json};
use crate::kernel::{Secret, chain};
use crate::users::application::log_in::{LogIn, LogInError};
use crate::users::domain::EmailAddress;
use crate::users::http::wire::TokenBody;

/// Longest text that is compared as a password: what is longer cannot be one.
const PASSWORD_BYTES_MAX: usize = 1024;

/// 200 with a token.
///
/// # Errors
/// 400, 401 `INVALID_CREDENTIALS`, 503, 429 by account; 429 by address stands before it.
pub(super) async fn handle(
    request: HttpRequest,
    payload: web::Payload,
    context: web::ReqData<RequestContext>,
    log_in: web::Data<LogIn>,
    account_limit: web::Data<TextLimiter>,
    logger: web::Data<Logger>,
) -> Result<HttpResponse, ApiError> {
    let (email, password) = parse(read_json(&request, payload).await?)?;
    if let Some(email) = &email {
        // Before anybody is looked up or hashed for; whether there is such an account makes no difference.
        account_limit.count(email.as_str()).await?;
    }
    let logged_in = log_in.execute(email, password).await.map_err(refusal)?;
    if let Some(e) = logged_in.renewal_failed {
        let request_id = context.request_id.as_str().to_owned();
        warn!(logger, "an outdated password hash could not be renewed"; "request_id" => request_id, "error" => chain(&e));
    }
    Ok(HttpResponse::Ok().json(TokenBody::from(&logged_in.access_token)))
}

/// Only the form of the body is checked here. A text that cannot be anybody's address or password is not told apart
/// from a wrong one.
fn parse(mut fields: JsonFields) -> Result<(Option<EmailAddress>, Secret), ApiError> {
    let email = fields.text("email", |text| {
        if text.contains('\0') { Err("must not contain the NUL character") } else { Ok(EmailAddress::parse(text).ok()) }
    });
    let password = fields.text("password", |text| {
        if text.contains('\0') {
            Err("must not contain the NUL character")
        } else if text.len() > PASSWORD_BYTES_MAX {
            Err("must be at most 1024 bytes long")
        } else {
            Ok(Secret::new(text))
        }
    });
    fields.finish(email.zip(password))
}

fn invalid_credentials() -> ApiError {
    let message = "The email address or the password is wrong.";
    ApiError::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIALS", message)
        .with_header(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"))
}

fn refusal(error: LogInError) -> ApiError {
    match error {
        LogInError::InvalidCredentials => invalid_credentials(),
        LogInError::Overloaded => ApiError::overloaded(),
        other @ (LogInError::Store(_) | LogInError::Hash(_) | LogInError::Token(_)) => ApiError::from_failure(&other),
    }
}

/// The body, for the document: it is read by [`parse`].
#[derive(ToSchema)]
#[schema(as = Credentials, rename_all = "camelCase")]
#[expect(dead_code, reason = "only its schema is used")]
struct Request {
    #[schema(pattern = r"^[^\x00]*$")]
    email: String,
    /// At most 1024 bytes.
    #[schema(format = "password", max_length = 1024, pattern = r"^[^\x00]*$")]
    password: String,
}

pub(super) fn endpoint() -> Endpoint {
    let bad = JsonFields::parse(br#"{"email":5}"#).and_then(parse);
    Endpoint::post("/v1/auth/login", "logIn", "Log in, and get a token")
        .tag("people")
        .about("A wrong password and an unknown address get the same answer, after the same time.")
        .limited()
        .body::<Request>(json!({"email": "ada@example.com", "password": "correct horse battery"}), bad.err())
        .answers(StatusCode::OK, "Logged in.", &TokenBody::example())
        .refuses([invalid_credentials(), ApiError::dependency_unavailable()])
}
