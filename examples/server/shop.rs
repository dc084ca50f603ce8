//! The shop's HTTP interface: all its routes, and the handlers for what it sells.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{ETAG, HeaderMap, IF_NONE_MATCH};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::analytics::{PriceRank, Related, Revenue, TopCustomer};
use crate::carrier::Shipping;
use crate::database::{Category, Database, Listing, Product, Sort};
use crate::errors::AppError;
use crate::outbox::Outbox;
use crate::{notices, orders, streams};

#[derive(Clone)]
pub struct Shop {
    pub database: Database,
    pub shipping: Shipping,
    pub outbox: Outbox,
    /// Changes once, when the server is told to stop: what would stream forever has to end then.
    pub closing: watch::Receiver<bool>,
}

pub type Id = Result<Path<i64>, PathRejection>;
pub type Params<T> = Result<Query<T>, QueryRejection>;
pub type Input<T> = Result<Json<T>, JsonRejection>;
pub type Answer<T> = Result<Json<T>, AppError>;

pub fn routes(shop: Shop) -> Router {
    Router::new()
        .route("/products", get(products))
        .route("/products/{id}", get(product).put(change_product))
        .route("/products/{id}/related", get(related))
        .route("/categories", get(categories))
        .route("/api/analytics/revenue", get(revenue))
        .route("/api/analytics/top-customers", get(top_customers))
        .route("/api/analytics/price-rank", get(price_rank))
        .route("/orders", post(orders::place_order))
        .route("/orders/{id}", get(orders::order))
        .route("/api/me/orders", get(orders::my_orders))
        .route("/checkout/quote", get(orders::quote))
        .route("/banner", get(notices::banner))
        .route("/leaflet/{id}", get(notices::leaflet))
        .route("/events", get(streams::events))
        .route("/export.csv", get(streams::export))
        .route("/health", get(health))
        .fallback(async || AppError::refused(StatusCode::NOT_FOUND, "there is no such page"))
        .method_not_allowed_fallback(async || {
            AppError::refused(StatusCode::METHOD_NOT_ALLOWED, "this page has no such method")
        })
        .with_state(shop)
}

#[derive(Deserialize)]
struct ListParams {
    category: Option<String>,
    #[serde(default)]
    sort: Sort,
    page: Option<u32>,
    per_page: Option<u32>,
}

#[derive(Serialize)]
struct ProductPage {
    page: u32,
    per_page: u32,
    total: i64,
    products: Vec<Product>,
}

async fn products(State(shop): State<Shop>, params: Params<ListParams>) -> Answer<ProductPage> {
    let Query(params) = params?;
    let (page, per_page) = (params.page.unwrap_or(1), params.per_page.unwrap_or(20));
    if page == 0 || !(1..=100).contains(&per_page) {
        return Err(AppError::bad_request("page begins at 1, and per_page is from 1 to 100"));
    }
    let listing = Listing {
        category: params.category.filter(|category| !category.is_empty()),
        sort: params.sort,
        limit: per_page.into(),
        offset: i64::from(page - 1) * i64::from(per_page),
    };
    let total = shop.database.count(listing.category.as_deref()).await?;
    let products = shop.database.list(&listing).await?;
    Ok(Json(ProductPage { page, per_page, total, products }))
}

async fn product(State(shop): State<Shop>, id: Id, headers: HeaderMap) -> Result<Response, AppError> {
    let product = find_product(&shop, id?.0).await?;
    let tag = format!("\"{}-{}\"", product.id, product.version);
    if already_has(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    Ok(([(ETAG, tag)], Json(product)).into_response())
}

pub async fn find_product(shop: &Shop, id: i64) -> Result<Product, AppError> {
    shop.database.product(id).await?.ok_or_else(|| AppError::not_found("product", id))
}

/// Our tags contain no comma, so the list may be cut at every one of them.
fn already_has(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    let mut known = lists.flat_map(|list| list.split(',')).map(str::trim);
    known.any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    price_cents: Option<i64>,
    stock: Option<i64>,
}

async fn change_product(State(shop): State<Shop>, id: Id, change: Input<Change>) -> Answer<Product> {
    let (Path(id), Json(change)) = (id?, change?);
    if change.price_cents.is_none() && change.stock.is_none() {
        return Err(AppError::unprocessable("give price_cents, stock or both"));
    }
    let sensible = |number: Option<i64>| number.is_none_or(|n| (0..=10_000_000).contains(&n));
    if !sensible(change.price_cents) || !sensible(change.stock) {
        return Err(AppError::unprocessable("price_cents and stock are from 0 to 10000000"));
    }
    let changed = shop.database.change(id, change.price_cents, change.stock).await?;
    changed.map(Json).ok_or_else(|| AppError::not_found("product", id))
}

async fn related(State(shop): State<Shop>, id: Id) -> Answer<Vec<Related>> {
    let product = find_product(&shop, id?.0).await?;
    Ok(Json(shop.database.related(product.id).await?))
}

async fn categories(State(shop): State<Shop>) -> Answer<Vec<Category>> {
    Ok(Json(shop.database.categories().await?))
}

async fn revenue(State(shop): State<Shop>) -> Answer<Vec<Revenue>> {
    Ok(Json(shop.database.revenue().await?))
}

async fn top_customers(State(shop): State<Shop>) -> Answer<Vec<TopCustomer>> {
    Ok(Json(shop.database.top_customers().await?))
}

async fn price_rank(State(shop): State<Shop>) -> Answer<Vec<PriceRank>> {
    Ok(Json(shop.database.price_rank().await?))
}

async fn health(State(shop): State<Shop>) -> Answer<Value> {
    let now = shop.database.now().await?;
    Ok(Json(json!({ "status": "ok", "time": now })))
}
