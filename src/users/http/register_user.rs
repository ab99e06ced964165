//! `POST /v1/auth/register`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::infra::http::openapi::Endpoint;
use crate::infra::http::{ApiError, JsonFields, RequestContext, read_json};
use crate::users::application::ports::Origin;
use crate::users::application::register_user::{NewUser, RegisterError, RegisterUser};
use crate::users::domain::{EmailAddress, Password, PersonName};
use crate::users::http::wire::{TokenBody, UserBody};

#[derive(Serialize, ToSchema)]
#[schema(as = Registered)]
struct Body {
    user: UserBody,
    #[serde(flatten)]
    token: TokenBody,
}

/// 201 with the person and a token.
///
/// # Errors
/// 400, 409 `EMAIL_EXISTS`, 503; 429 stands before it.
pub(super) async fn handle(
    request: HttpRequest,
    payload: web::Payload,
    context: web::ReqData<RequestContext>,
    register_user: web::Data<RegisterUser>,
) -> Result<HttpResponse, ApiError> {
    let new = parse(read_json(&request, payload).await?)?;
    let RequestContext { request_id, traceparent } = context.into_inner();
    let registered = register_user.execute(new, Origin { request_id, traceparent }).await.map_err(refusal)?;
    Ok(HttpResponse::Created().json(Body { user: (&registered.user).into(), token: (&registered.access_token).into() }))
}

fn parse(mut fields: JsonFields) -> Result<NewUser, ApiError> {
    let first_name = fields.text("firstName", PersonName::parse);
    let last_name = fields.text("lastName", PersonName::parse);
    let email = fields.text("email", EmailAddress::parse);
    let password = fields.text("password", Password::parse);
    let new = || Some(NewUser { first_name: first_name?, last_name: last_name?, email: email?, password: password? });
    fields.finish(new())
}

fn email_exists() -> ApiError {
    let message = "This email address is already registered. Log in instead.";
    ApiError::new(StatusCode::CONFLICT, "EMAIL_EXISTS", message)
}

fn refusal(error: RegisterError) -> ApiError {
    match error {
        RegisterError::EmailExists => email_exists(),
        RegisterError::Overloaded => ApiError::overloaded(),
        other @ (RegisterError::Store(_) | RegisterError::Hash(_) | RegisterError::Token(_)) => {
            ApiError::from_failure(&other)
        }
    }
}

/// The body, for the document: it is read by [`parse`].
#[derive(ToSchema)]
#[schema(as = Registration, rename_all = "camelCase")]
#[expect(dead_code, reason = "only its schema is used")]
struct Request {
    /// No control characters; blanks at its ends are dropped.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    first_name: String,
    /// No control characters; blanks at its ends are dropped.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    )]
    last_name: String,
    /// At most 254 bytes. Upper and lower case are the same.
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// 8 characters to 1024 bytes, taken exactly as sent.
    #[schema(format = "password", min_length = 8, max_length = 1024, pattern = r"^[^\x00]*$")]
    password: String,
}

pub(super) fn endpoint() -> Endpoint {
    let example = json!({"firstName": "Ada", "lastName": "Lovelace", "email": "ada@example.com", "password": "correct horse battery"});
    let bad = JsonFields::parse(br#"{"firstName":"Ada","lastName":" ","email":"ada","colour":"red"}"#).and_then(parse);
    Endpoint::post("/v1/auth/register", "register", "Register, and get a token")
        .tag("people")
        .about("The wallet is made by the wallet role, normally some milliseconds after this answer.")
        .limited()
        .body::<Request>(example, bad.err())
        .answers(StatusCode::CREATED, "Registered.", &Body { user: UserBody::example(), token: TokenBody::example() })
        .refuses([email_exists(), ApiError::dependency_unavailable()])
}
