//! An endpoint: its route and what the document says about it, declared together.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderName;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, FromRequest, Handler, Resource, Responder, ResponseError as _, Route, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType};
use utoipa::openapi::{
    ArrayBuilder, ContentBuilder, Object, ObjectBuilder, Ref, RefOr, Required, Schema, SchemaFormat,
    SecurityRequirement, Type,
};

use super::response::{ALWAYS, COUNTED, ResponseDoc};
use crate::infra::config::RateLimit;
use crate::infra::http::fields::{FieldSchema, ItemSchema, UNKNOWN_PARAMETER};
use crate::infra::http::json_body::{BODY_BYTES_MAX, slow_body, too_large, wrong_coding, wrong_media_type};
use crate::infra::http::{ApiError, CountBy, Fields, LimitPolicy, Limiter, authenticate, authenticate_service};
use crate::infra::security::service_token::Scope;

/// A format by its name in JSON Schema.
pub fn format(name: &str) -> SchemaFormat {
    SchemaFormat::Custom(name.to_owned())
}

/// The security scheme of users, and that of services, which is also the tag of their operations.
pub(super) const BEARER: &str = "bearer";
pub(super) const SERVICE: &str = "service";
/// Where the paths of services begin, instead of `/v1/`.
const SERVICE_PATHS: &str = "/v1/wallets/{userId}/";
/// The parameter of those paths.
pub const USER_ID: &str = "userId";

/// An optional field of a body may be null.
fn or_null(schema_type: SchemaType) -> SchemaType {
    match schema_type {
        SchemaType::Type(of) => SchemaType::from_iter([of, Type::Null]),
        others => others,
    }
}

/// Schemas by name.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

/// A route and its documentation. `Api` is the struct of what a role's routes need.
pub struct Endpoint<Api> {
    path: String,
    method: HttpMethod,
    route: Route,
    id: String,
    is_documented: bool,
    token: Token,
    limit: Option<Limit<Api>>,
    guard: Option<fn(Route) -> Route>,
    parameters: Parameters,
    operation: OperationBuilder,
    responses: BTreeMap<u16, ResponseDoc>,
    schemas: Schemas,
}

/// What the document says about an endpoint.
pub(super) struct Operation {
    pub(super) path: String,
    pub(super) method: HttpMethod,
    pub(super) builder: OperationBuilder,
    /// The security scheme that it needs.
    pub(super) scheme: Option<&'static str>,
    pub(super) responses: BTreeMap<u16, ResponseDoc>,
    pub(super) schemas: Schemas,
}

/// The token that a request needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    None,
    /// Of a user.
    Access,
    /// Of a service.
    Service(Scope),
}

impl Token {
    const fn scheme(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Access => Some(BEARER),
            Self::Service(_) => Some(SERVICE),
        }
    }
}

/// What happens to the query parameters of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameters {
    /// The endpoint has none: any is a 400, before the handler runs.
    None,
    /// The handler reads them with a form, which refuses unknown ones.
    Form,
    Ignored,
}

type Limit<Api> = Box<dyn FnOnce(&Api, Route) -> Route>;

/// Adds the endpoints to an application, in their order: where two paths match a request, the first one gets it.
pub fn serve<Api: 'static>(
    api: &Api,
    endpoints: impl IntoIterator<Item = Endpoint<Api>>,
    app: &mut web::ServiceConfig,
) {
    // One resource per path, so that a 405 lists all of its methods.
    let mut paths: Vec<(String, Vec<Route>)> = Vec::new();
    for endpoint in endpoints {
        let (path, route) = (endpoint.path.clone(), endpoint.route(api));
        match paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, routes)) => routes.push(route),
            None => paths.push((path, vec![route])),
        }
    }
    for (path, routes) in paths {
        app.service(routes.into_iter().fold(web::resource(path), Resource::route));
    }
}

impl<Api: 'static> Endpoint<Api> {
    /// `id` is the name of the method in generated clients.
    pub fn get<F, Args>(path: &'static str, handler: F, id: &str, summary: &str) -> Self
    where
        F: Handler<Args>,
        F::Output: Responder + 'static,
        Args: FromRequest + 'static,
    {
        Self::new(HttpMethod::Get, path, web::get().to(handler), id, summary)
    }

    /// For operators and browsers: served, but not part of the document, so that generated clients do not get a method for
    /// it. The query is not looked at, because probes, scrapers and browsers add parameters of their own.
    pub fn undocumented<F, Args>(path: &'static str, handler: F) -> Self
    where
        F: Handler<Args>,
        F::Output: Responder + 'static,
        Args: FromRequest + 'static,
    {
        let new = Self::new(HttpMethod::Get, path, web::get().to(handler), "", "");
        Self { is_documented: false, parameters: Parameters::Ignored, ..new }
    }

    /// `id` is the name of the method in generated clients.
    pub fn post<F, Args>(path: &'static str, handler: F, id: &str, summary: &str) -> Self
    where
        F: Handler<Args>,
        F::Output: Responder + 'static,
        Args: FromRequest + 'static,
    {
        Self::new(HttpMethod::Post, path, web::post().to(handler), id, summary)
    }

    fn new(method: HttpMethod, path: &'static str, route: Route, id: &str, summary: &str) -> Self {
        // No security requirement, not even an optional one, until `bearer` adds it.
        let open = Some(Vec::<SecurityRequirement>::new());
        let mut operation = OperationBuilder::new().operation_id(Some(id)).summary(Some(summary)).securities(open);
        for name in ALWAYS {
            operation = operation.parameter_ref(Ref::new(format!("#/components/parameters/{name}")));
        }
        let (responses, schemas) = (BTreeMap::new(), Vec::new());
        let (is_documented, token, limit, guard, parameters) = (true, Token::None, None, None, Parameters::None);
        let new = Self {
            path: path.to_owned(),
            method,
            route,
            id: id.to_owned(),
            is_documented,
            token,
            limit,
            guard,
            parameters,
            operation,
            responses,
            schemas,
        };
        // Also what is rejected before routing.
        new.errors([ApiError::malformed(), ApiError::slow_head(), ApiError::head_too_large(), ApiError::internal()])
    }

    /// The route with what wraps it: the token is checked first, then the limit, the guard and the query; a wrong method is
    /// refused before all of them.
    fn route(self, api: &Api) -> Route {
        let route = match self.parameters {
            Parameters::None => self.route.wrap(from_fn(without_query)),
            Parameters::Form | Parameters::Ignored => self.route,
        };
        let route = match self.guard {
            Some(guard) => guard(route),
            None => route,
        };
        let route = match self.limit {
            Some(limit) => limit(api, route),
            None => route,
        };
        match self.token {
            Token::None => route,
            Token::Access => route.wrap(from_fn(authenticate)),
            Token::Service(scope) => {
                route.wrap(from_fn(move |request, next: Next<BoxBody>| authenticate_service(scope, request, next)))
            }
        }
    }

    fn changed(mut self, change: impl FnOnce(OperationBuilder) -> OperationBuilder) -> Self {
        self.operation = change(self.operation);
        self
    }

    fn at(&mut self, status: StatusCode) -> &mut ResponseDoc {
        self.responses.entry(status.as_u16()).or_default()
    }

    #[must_use]
    pub fn tag(self, tag: &str) -> Self {
        self.changed(|operation| operation.tag(tag))
    }

    /// Markdown, shown below the summary.
    #[must_use]
    pub fn about(self, description: &str) -> Self {
        self.changed(|operation| operation.description(Some(description)))
    }

    /// Requires an access token.
    #[must_use]
    pub fn bearer(self) -> Self {
        self.with_token(Token::Access).errors([ApiError::unauthorized()])
    }

    fn with_token(mut self, token: Token) -> Self {
        self.token = token;
        let required = token.scheme().map(|scheme| [SecurityRequirement::new(scheme, Vec::<String>::new())]);
        self.changed(|operation| operation.securities(required))
    }

    /// Whether a request changes nothing.
    pub fn is_read(&self) -> bool {
        self.method == HttpMethod::Get
    }

    /// The same for services, on behalf of the user that the path names: with a service token instead of an access token,
    /// with the limit of services instead of that of users, and a request needs the scope that belongs to its method. The
    /// path begins with `/v1/`, and the name of the method in generated clients ends in `ForUser`.
    #[must_use]
    pub fn for_services<T: CountBy>(mut self, limiter: fn(&Api) -> Option<&Limiter<T>>) -> Self {
        let scope = if self.is_read() { Scope::Read } else { Scope::Post };
        self.path = self.path.replacen("/v1/", SERVICE_PATHS, 1);
        self.id.push_str("ForUser");
        self.limit = Some(Box::new(move |api, route| match limiter(api) {
            Some(limiter) => limiter.around(route),
            None => route,
        }));
        let user = ObjectBuilder::new().schema_type(Type::String).format(Some(format("uuid")));
        let id = self.id.clone();
        self.with_token(Token::Service(scope))
            .changed(|operation| operation.operation_id(Some(id)).tags(Some([SERVICE])))
            .parameter(ParameterIn::Path, USER_ID, "ID of the user whose wallet it is.", user.build())
            .errors([ApiError::insufficient_scope(scope), example_of_limited()])
    }

    /// A rate limit counts its requests: 429 over the limit, and what is left of it on every counted response.
    #[must_use]
    pub fn limited<T: CountBy>(mut self, limiter: fn(&Api) -> &Limiter<T>) -> Self {
        self.limit = Some(Box::new(move |api, route| limiter(api).around(route)));
        self.errors([example_of_limited()])
    }

    /// The same, but the handler counts each request, with the [`Tally`](crate::infra::http::Tally) in its extensions.
    #[must_use]
    pub fn limited_by_handler<T: CountBy>(mut self, limiter: fn(&Api) -> &Limiter<T>) -> Self {
        self.limit = Some(Box::new(move |api, route| limiter(api).around_tally(route)));
        self.errors([example_of_limited()])
    }

    /// A check after the rate limit and before the query and the body are looked at.
    #[must_use]
    pub fn guarded(self, guard: fn(Route) -> Route) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Documents a JSON body with the fields of `form`, as the schema `name`. The example of a 400 is the response to
    /// `bad`.
    #[must_use]
    pub fn body<T>(mut self, name: &str, form: impl Fn(&mut Fields) -> Option<T>, example: Value, bad: &Value) -> Self {
        self.object(name, Fields::describe(&form));
        let refused = Fields::json(bad.to_string().as_bytes()).and_then(|fields| fields.read(form));
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(name))).example(Some(example)).build();
        let body = RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True));
        self.changed(|operation| operation.request_body(Some(body.build()))).example_of(refused.err()).errors([
            slow_body(),
            too_large(BODY_BYTES_MAX),
            wrong_coding("gzip"),
            wrong_media_type(),
            ApiError::stopping(),
            ApiError::overloaded(),
        ])
    }

    /// Adds the schema of an object.
    fn object(&mut self, name: &str, fields: Vec<FieldSchema>) {
        let mut object = ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
        for FieldSchema { name, is_required, mut schema, items } in fields {
            if is_required {
                object = object.required(name);
            } else {
                schema.schema_type = or_null(schema.schema_type);
            }
            object = match items {
                None => object.property(name, schema),
                Some(ItemSchema { name: item, fields, max }) => {
                    self.object(item, fields);
                    let list = ArrayBuilder::new()
                        .description(schema.description)
                        .items(Ref::from_schema_name(item))
                        .min_items(Some(1))
                        .max_items(Some(max));
                    object.property(name, list)
                }
            };
        }
        self.schemas.push((name.to_owned(), object.build().into()));
    }

    /// Documents that the body may be larger than others; after [`body`](Self::body).
    #[must_use]
    pub fn body_up_to(mut self, bytes_max: usize) -> Self {
        let error = too_large(bytes_max);
        self.responses.remove(&error.status_code().as_u16());
        self.example_of(Some(error))
    }

    /// Documents the query parameters of `form`, with which the handler has to read the query. The example of a 400 is the
    /// response to `bad`.
    #[must_use]
    pub fn query<T>(mut self, form: impl Fn(&mut Fields) -> Option<T>, bad: &str) -> Self {
        self.parameters = Parameters::Form;
        let refused = Fields::query(bad).read(&form);
        let described = Fields::describe(form).into_iter().fold(self, |endpoint, mut field| {
            let about = field.schema.description.take().unwrap_or_default();
            endpoint.with_parameter(ParameterIn::Query, (field.name, field.is_required), &about, field.schema)
        });
        described.example_of(refused.err())
    }

    /// Documents a parameter of the path, which is required, or a header, which is not.
    #[must_use]
    pub fn parameter(self, place: ParameterIn, name: &str, about: &str, schema: Object) -> Self {
        let is_required = place == ParameterIn::Path;
        self.with_parameter(place, (name, is_required), about, schema)
    }

    fn with_parameter(
        self,
        place: ParameterIn,
        (name, is_required): (&str, bool),
        about: &str,
        schema: Object,
    ) -> Self {
        // Swagger UI fills its form with the example of the parameter, not with that of the schema.
        let example = schema.examples.first().cloned();
        let parameter: Parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(if is_required { Required::True } else { Required::False })
            .description(Some(about))
            .schema(Some(schema))
            .example(example)
            .build();
        self.changed(|operation| operation.parameter(parameter))
    }

    /// Documents a JSON response.
    #[must_use]
    pub fn returns<T: ToSchema + Serialize>(mut self, status: StatusCode, about: &str, example: &T) -> Self {
        let schema = self.schema::<T>();
        let example = serde_json::to_value(example).unwrap_or(Value::Null);
        self.at(status).body("application/json", schema, about, example);
        self
    }

    /// Documents a response that is text, with its media types and an example of each.
    #[must_use]
    pub fn returns_text(mut self, status: StatusCode, about: &str, examples: &[(&str, &str)]) -> Self {
        let response = self.at(status);
        response.line(about.to_owned());
        for (media_type, example) in examples {
            response.text(media_type, example);
        }
        self
    }

    #[must_use]
    pub fn with_header(mut self, status: StatusCode, name: &HeaderName) -> Self {
        self.at(status).header(name.as_str());
        self
    }

    /// Documents error responses.
    #[must_use]
    pub fn errors<E: std::borrow::Borrow<ApiError>>(mut self, errors: impl IntoIterator<Item = E>) -> Self {
        for error in errors {
            self.at(error.borrow().status_code()).error(error.borrow());
        }
        self
    }

    /// Documents the response to a request that is invalid in a way that only this endpoint knows.
    fn example_of(mut self, error: Option<ApiError>) -> Self {
        if let Some(error) = error {
            self.at(error.status_code()).own_error(&error);
        }
        self
    }

    /// Adds a schema, and those that it refers to, to the components, and returns a reference to it.
    fn schema<T: ToSchema>(&mut self) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        self.schemas.push((T::name().into_owned(), T::schema()));
        Ref::from_schema_name(T::name()).into()
    }

    /// `None` if the document does not list it.
    pub(super) fn described(mut self) -> Option<Operation> {
        if !self.is_documented {
            return None;
        }
        if !self.at(StatusCode::BAD_REQUEST).has_own_example() {
            self = self.errors([ApiError::invalid("colour", UNKNOWN_PARAMETER)]);
        }
        if self.limit.is_some() {
            // A request without a valid token, or without the scope, is not counted, nor is one whose head is rejected.
            let is_counted = |status: u16| match self.token {
                Token::None => status != 431,
                Token::Access => ![401, 431].contains(&status),
                Token::Service(_) => ![401, 403, 431].contains(&status),
            };
            for (_, response) in self.responses.iter_mut().filter(|(status, _)| is_counted(**status)) {
                for name in COUNTED {
                    response.header(name);
                }
            }
        }
        let scheme = self.token.scheme();
        let Self { path, method, operation, responses, schemas, .. } = self;
        Some(Operation { path, method, builder: operation, scheme, responses, schemas })
    }
}

fn example_of_limited() -> ApiError {
    let limit = RateLimit { max: NonZeroU32::MIN, window: Duration::from_mins(1) };
    ApiError::rate_limited(&LimitPolicy { name: "example", limit }, NonZeroU32::MIN, Duration::from_secs(2))
}

/// Middleware: refuses every query parameter.
async fn without_query(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody>>, Error> {
    let refused = match request.query_string() {
        "" => None,
        query => Fields::query(query).read(|_| Some(())).err(),
    };
    match refused {
        Some(error) => Ok(request.error_response(error).map_into_right_body()),
        None => next.call(request).await.map(ServiceResponse::map_into_left_body),
    }
}
