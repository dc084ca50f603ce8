//! Two answers that a cache has to be set up for with care, planted on purpose: the report of larder finds out about both.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT_LANGUAGE;

use crate::errors::AppError;
use crate::shop::{Id, Shop, find_product};

/// It reads `Accept-Language` and doesn't say so: `Vary` is missing.
pub async fn banner(headers: HeaderMap) -> &'static str {
    let language = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match language.get(..2) {
        Some("de") => "Heute frei Haus ab 30 Euro\n",
        Some("fr") => "Livraison gratuite dès 30 euros\n",
        _ => "Free delivery today from 30 euros\n",
    }
}

/// What hangs in the window. It changes when a price does, which is seldom.
pub async fn leaflet(State(shop): State<Shop>, id: Id) -> Result<String, AppError> {
    let product = find_product(&shop, id?.0).await?;
    Ok(format!("{}: {}.{:02} euros\n", product.name, product.price_cents / 100, product.price_cents % 100))
}
