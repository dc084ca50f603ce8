//! The words of which the made-up products and customers are put together.

pub struct Category {
    pub slug: &'static str,
    pub name: &'static str,
    pub unit: &'static str,
    pub cents_per_gram: u64,
    pub goods: [&'static str; 6],
}

#[rustfmt::skip]
pub const CATEGORIES: [Category; 12] = [
    Category {
        slug: "flour", name: "Flour and grain", unit: "g", cents_per_gram: 1,
        goods: ["Rye Flour", "Spelt Flour", "Oat Flakes", "Pearl Barley", "Semolina", "Buckwheat"],
    },
    Category {
        slug: "pasta", name: "Pasta", unit: "g", cents_per_gram: 1,
        goods: ["Spaghetti", "Penne", "Farfalle", "Tagliatelle", "Orzo", "Lasagne"],
    },
    Category {
        slug: "beans", name: "Beans and lentils", unit: "g", cents_per_gram: 1,
        goods: [
            "Black Beans", "Chickpeas", "Red Lentils",
            "Split Peas", "Borlotti Beans", "Green Lentils",
        ],
    },
    Category {
        slug: "oils", name: "Oils and vinegars", unit: "ml", cents_per_gram: 2,
        goods: [
            "Olive Oil", "Walnut Oil", "Rapeseed Oil",
            "Cider Vinegar", "Sherry Vinegar", "Sesame Oil",
        ],
    },
    Category {
        slug: "spices", name: "Spices", unit: "g", cents_per_gram: 6,
        goods: [
            "Smoked Paprika", "Black Pepper", "Cumin Seed",
            "Cardamom", "Turmeric", "Fennel Seed",
        ],
    },
    Category {
        slug: "tea", name: "Tea", unit: "g", cents_per_gram: 5,
        goods: ["Green Tea", "Black Tea", "Peppermint Tea", "Rooibos", "White Tea", "Camomile"],
    },
    Category {
        slug: "coffee", name: "Coffee", unit: "g", cents_per_gram: 3,
        goods: [
            "Espresso Beans", "Filter Coffee", "Decaf Beans",
            "Dark Roast", "Light Roast", "Peaberry",
        ],
    },
    Category {
        slug: "jam", name: "Jam and honey", unit: "g", cents_per_gram: 2,
        goods: [
            "Plum Jam", "Apricot Jam", "Heather Honey",
            "Orange Marmalade", "Quince Jelly", "Acacia Honey",
        ],
    },
    Category {
        slug: "pickles", name: "Pickles", unit: "g", cents_per_gram: 1,
        goods: [
            "Gherkins", "Pickled Onions", "Capers",
            "Piccalilli", "Sauerkraut", "Pickled Beets",
        ],
    },
    Category {
        slug: "cheese", name: "Cheese", unit: "g", cents_per_gram: 3,
        goods: [
            "Cheddar", "Blue Cheese", "Goat Cheese",
            "Smoked Cheese", "Mountain Cheese", "Pecorino",
        ],
    },
    Category {
        slug: "chocolate", name: "Chocolate", unit: "g", cents_per_gram: 3,
        goods: [
            "Dark Chocolate", "Milk Chocolate", "Cocoa Powder",
            "Hazelnut Spread", "Nougat", "Cocoa Nibs",
        ],
    },
    Category {
        slug: "biscuits", name: "Bread and biscuits", unit: "g", cents_per_gram: 2,
        goods: ["Crispbread", "Shortbread", "Oatcakes", "Rusks", "Gingerbread", "Crackers"],
    },
];

#[rustfmt::skip]
pub const ORIGINS: [&str; 10] = [
    "Cornish", "Tuscan", "Bavarian", "Breton", "Andalusian", "Alpine", "Hebridean", "Cretan",
    "Jutish", "Carpathian",
];
pub const GRAMS: [u64; 7] = [100, 200, 250, 400, 500, 750, 1_000];
#[rustfmt::skip]
pub const MAKERS: [&str; 8] = [
    "a family business", "a village cooperative", "two sisters", "a retired engineer",
    "a monastery", "a harbour workshop", "a small estate", "an old mill",
];
#[rustfmt::skip]
pub const STORIES: [&str; 5] = [
    "packed by hand within a week of the harvest", "keeps for a year in a cool and dark place",
    "awarded at last autumn's market", "made in small batches from what the season gives",
    "sold without any additives",
];
#[rustfmt::skip]
pub const FIRST_NAMES: [&str; 20] = [
    "Ada", "Bela", "Chiara", "Dario", "Edda", "Femi", "Greta", "Hugo", "Ines", "Jonas", "Kaya",
    "Luca", "Mira", "Noor", "Olga", "Pavel", "Quinn", "Rosa", "Samir", "Tove",
];
#[rustfmt::skip]
pub const LAST_NAMES: [&str; 20] = [
    "Abel", "Brandt", "Castro", "Dumas", "Eriksen", "Fischer", "Galli", "Horvath", "Ivanova",
    "Jansen", "Keller", "Lindt", "Moreau", "Novak", "Okafor", "Petit", "Rossi", "Silva", "Toth",
    "Weber",
];
#[rustfmt::skip]
pub const CITIES: [&str; 8] = [
    "Antwerp", "Bergen", "Cork", "Graz", "Leipzig", "Lyon", "Porto", "Turin",
];
