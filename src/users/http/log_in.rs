//! `POST /v1/auth/login`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use slog::{Logger, warn};

use crate::infra::http::openapi::{Endpoint, format};
use crate::infra::http::{ApiError, Fields, RequestContext, TextLimiter, read_json};
use crate::kernel::{Secret, chain};
use crate::users::application::log_in::{LogIn, LogInError};
use crate::users::domain::EmailAddress;
use crate::users::http::api::UsersApi;
use crate::users::http::wire::TokenBody;

const PASSWORD_BYTES_MAX: usize = 1024;
/// A text without NUL characters.
const NO_NUL: &str = r"^[^\x00]*$";

/// 200 with a token.
///
/// # Errors
/// 400, 429 by account, 401, 503; after 429 by address.
async fn handle(
    request: HttpRequest,
    payload: web::Payload,
    context: web::ReqData<RequestContext>,
    log_in: web::Data<LogIn>,
    account_limit: web::Data<TextLimiter>,
    logger: web::Data<Logger>,
) -> Result<HttpResponse, ApiError> {
    let (email, password) = read_json(&request, payload).await?.read(credentials)?;
    if let Some(email) = &email {
        // Before any look-up or hashing, and whether or not the account exists.
        account_limit.count(email.as_str()).await?;
    }
    let logged_in = log_in.execute(email, password).await.map_err(api_error)?;
    if let Some(e) = logged_in.renewal_failed {
        let request_id = context.request_id.as_str().to_owned();
        warn!(logger, "could not renew an outdated password hash"; "request_id" => request_id, "error" => chain(&e));
    }
    Ok(HttpResponse::Ok().json(TokenBody::from(&logged_in.access_token)))
}

/// A text that cannot be an email address or a password is wrong credentials, not an invalid body.
fn credentials(body: &mut Fields) -> Option<(Option<EmailAddress>, Secret)> {
    let no_nul = |text: &str| if text.contains('\0') { Err("must not contain the NUL character") } else { Ok(()) };
    let email = body.text(
        "email",
        |text| no_nul(text).map(|()| EmailAddress::parse(text).ok()),
        |email| email.pattern(Some(NO_NUL)),
    );
    let password = body.text(
        "password",
        |text| match text.len() {
            0..=PASSWORD_BYTES_MAX => no_nul(text).map(|()| Secret::new(text)),
            _ => Err("must be at most 1024 bytes long"),
        },
        |password| {
            password
                .description(Some("At most 1024 bytes."))
                .format(Some(format("password")))
                .max_length(Some(PASSWORD_BYTES_MAX))
                .pattern(Some(NO_NUL))
        },
    );
    email.zip(password)
}

fn invalid_credentials() -> ApiError {
    let message = "Wrong email address or password.";
    ApiError::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIALS", message)
        .with_header(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"))
}

fn api_error(error: LogInError) -> ApiError {
    match error {
        LogInError::InvalidCredentials => invalid_credentials(),
        LogInError::Overloaded => ApiError::overloaded(),
        other @ (LogInError::Store(_) | LogInError::Hash(_) | LogInError::Token(_)) => ApiError::from_failure(&other),
    }
}

pub(super) fn endpoint() -> Endpoint<UsersApi> {
    let example = json!({"email": "ada@example.com", "password": "correct horse battery"});
    Endpoint::post("/v1/auth/login", handle, "login", "Log in")
        .tag("users")
        .about("A wrong password and an unknown email address get the same response, after the same time.")
        .limited(|api: &UsersApi| &api.login_limit)
        .body("Credentials", credentials, example, &json!({"email": 5}))
        .returns(StatusCode::OK, "Logged in.", &TokenBody::example())
        .errors([invalid_credentials(), ApiError::dependency_unavailable()])
}
