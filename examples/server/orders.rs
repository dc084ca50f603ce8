//! Handlers for what customers buy: quotes, orders, and each customer's own list of them.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderMap, LOCATION};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use crate::database::Order;
use crate::errors::AppError;
use crate::shop::{Id, Input, Params, Shop, find_product};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    customer_id: i64,
    product_id: i64,
    quantity: i64,
}

pub async fn place_order(State(shop): State<Shop>, order: Input<NewOrder>) -> Result<impl IntoResponse, AppError> {
    let Json(NewOrder { customer_id, product_id, quantity }) = order?;
    check_quantity(quantity)?;
    if !shop.database.knows_customer(customer_id).await? {
        return Err(AppError::unprocessable(format!("there is no customer {customer_id}")));
    }
    if shop.database.product(product_id).await?.is_none() {
        return Err(AppError::unprocessable(format!("there is no product {product_id}")));
    }
    let placed = shop.database.place_order(customer_id, product_id, quantity).await?;
    let id = placed.ok_or_else(|| AppError::conflict("too few of this product are in stock"))?;
    shop.outbox.told().await;
    let order = find_order(&shop, id).await?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/orders/{id}"))], Json(order)))
}

fn check_quantity(quantity: i64) -> Result<(), AppError> {
    if (1..=100).contains(&quantity) { Ok(()) } else { Err(AppError::unprocessable("quantity is from 1 to 100")) }
}

async fn find_order(shop: &Shop, id: i64) -> Result<Order, AppError> {
    shop.database.order(id).await?.ok_or_else(|| AppError::not_found("order", id))
}

/// An order is its customer's business, so no shared cache may keep it. (In a real shop nobody
/// else could read it either.)
pub async fn order(State(shop): State<Shop>, id: Id) -> Result<impl IntoResponse, AppError> {
    let order = find_order(&shop, id?.0).await?;
    Ok(([(CACHE_CONTROL, "private")], Json(order)))
}

/// A toy: the token `user-17` simply stands for customer 17. A real token would be checked here.
pub fn signed_in(headers: &HeaderMap) -> Option<i64> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let number = token.trim().strip_prefix("user-")?;
    if scheme.eq_ignore_ascii_case("bearer") { number.parse().ok() } else { None }
}

/// The tag says to caches on the way, if they listen to it, what makes the answer an old one.
pub async fn my_orders(State(shop): State<Shop>, headers: HeaderMap) -> Result<impl IntoResponse, AppError> {
    let customer = signed_in(&headers).ok_or(AppError::NotSignedIn)?;
    if !shop.database.knows_customer(customer).await? {
        return Err(AppError::NotSignedIn);
    }
    let orders = shop.database.newest_orders_of(customer).await?;
    Ok(([("cache-tag", format!("customer:{customer}"))], Json(orders)))
}

#[derive(Deserialize)]
pub struct QuoteParams {
    product_id: Option<i64>,
    quantity: Option<i64>,
}

#[derive(Serialize)]
struct Quote {
    product_id: i64,
    quantity: i64,
    unit_price_cents: i64,
    shipping_cents: i64,
    total_cents: i64,
    in_stock: bool,
    quoted_at: String,
}

/// A price that somebody is about to pay must be the price of this moment.
pub async fn quote(State(shop): State<Shop>, params: Params<QuoteParams>) -> Result<impl IntoResponse, AppError> {
    let Query(params) = params?;
    let quantity = params.quantity.unwrap_or(1);
    check_quantity(quantity)?;
    let product = find_product(&shop, params.product_id.unwrap_or(1)).await?;
    let goods_cents = product.price_cents * quantity;
    let carrier_takes = shop.shipping.call((product.category, quantity)).await;
    let carrier_takes = carrier_takes.map_err(|_| {
        AppError::refused(StatusCode::SERVICE_UNAVAILABLE, "the carrier doesn't answer: try again in a moment")
    })?;
    let shipping_cents = if goods_cents >= 5_000 { 0 } else { carrier_takes };
    let quote = Quote {
        product_id: product.id,
        quantity,
        unit_price_cents: product.price_cents,
        shipping_cents,
        total_cents: goods_cents + shipping_cents,
        in_stock: product.stock >= quantity,
        quoted_at: shop.database.now().await?,
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(quote)))
}
