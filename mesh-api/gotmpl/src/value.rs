//! Values of a running template: JSON's, but that dictionaries are shared, as Go's maps are: `set` is seen by all
//! who hold the same one.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Number, Value as Json};

/// A shared dictionary.
pub(crate) type Dict = Rc<RefCell<BTreeMap<Rc<str>, Value>>>;

/// Deepest nesting of a value that is built, compared or written.
pub(crate) const MAX_DEPTH: usize = 200;

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    List(Rc<[Self]>),
    Map(Dict),
}

impl Value {
    pub(crate) fn str(text: impl AsRef<str>) -> Self {
        Self::Str(Rc::from(text.as_ref()))
    }

    pub(crate) fn list(items: Vec<Self>) -> Self {
        Self::List(items.into())
    }

    pub(crate) fn map(entries: BTreeMap<Rc<str>, Self>) -> Self {
        Self::Map(Rc::new(RefCell::new(entries)))
    }

    pub(crate) fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Self::Int(value),
                None => Self::Float(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Self::str(text),
            Json::Array(items) => Self::list(items.iter().map(Self::from_json).collect()),
            Json::Object(map) => {
                Self::map(map.iter().map(|(key, value)| (Rc::from(key.as_str()), Self::from_json(value))).collect())
            }
        }
    }

    /// The value as JSON.
    ///
    /// # Errors
    /// When it is nested too deeply.
    pub(crate) fn to_json(&self) -> Result<Json, String> {
        self.json_at(0)
    }

    fn json_at(&self, depth: usize) -> Result<Json, String> {
        if depth > MAX_DEPTH {
            return Err(format!("a value is nested more than {MAX_DEPTH} levels"));
        }
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Float(value) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Self::Str(text) => Json::String(text.to_string()),
            Self::List(items) => {
                Json::Array(items.iter().map(|item| item.json_at(depth + 1)).collect::<Result<_, _>>()?)
            }
            Self::Map(dict) => {
                let mut map = Map::new();
                for (key, value) in dict.borrow().iter() {
                    map.insert(key.to_string(), value.json_at(depth + 1)?);
                }
                Json::Object(map)
            }
        })
    }

    /// A copy that shares no dictionary with this one.
    pub(crate) fn deep_copy(&self) -> Self {
        match self {
            Self::List(items) => Self::List(items.iter().map(Self::deep_copy).collect()),
            Self::Map(dict) => {
                Self::map(dict.borrow().iter().map(|(key, value)| (Rc::clone(key), value.deep_copy())).collect())
            }
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Str(_) => self.clone(),
        }
    }

    /// Whether the dictionary is this one or in it.
    pub(crate) fn holds(&self, wanted: &Dict) -> bool {
        match self {
            Self::List(items) => items.iter().any(|item| item.holds(wanted)),
            Self::Map(dict) => Rc::ptr_eq(dict, wanted) || dict.borrow().values().any(|value| value.holds(wanted)),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Str(_) => false,
        }
    }

    /// Nesting: 0 for what holds nothing.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::List(items) => items.iter().map(|item| item.depth() + 1).max().unwrap_or(0),
            Self::Map(dict) => dict.borrow().values().map(|item| item.depth() + 1).max().unwrap_or(0),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Str(_) => 0,
        }
    }

    /// How many values it is made of, for the account of steps.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::List(items) => items.iter().map(Self::weight).sum::<usize>() + 1,
            Self::Map(dict) => dict.borrow().values().map(Self::weight).sum::<usize>() + 1,
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) => 1,
            Self::Str(text) => 1 + text.len() / 256,
        }
    }

    /// Go templates' truth: not the zero value of its type.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(dict) => !dict.borrow().is_empty(),
        }
    }

    /// Go's name of the value's kind (`reflect.Kind`).
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "invalid",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int64",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::List(_) => "slice",
            Self::Map(_) => "map",
        }
    }

    /// The text that Go's `%v` prints; `missing` stands for what is not there.
    pub(crate) fn text(&self, missing: &str) -> String {
        match self {
            Self::Null => missing.to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => float(*value),
            Self::Str(text) => text.to_string(),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.text("<nil>")).collect();
                format!("[{}]", items.join(" "))
            }
            Self::Map(dict) => {
                let dict = dict.borrow();
                let entries: Vec<String> =
                    dict.iter().map(|(key, value)| format!("{key}:{}", value.text("<nil>"))).collect();
                format!("map[{}]", entries.join(" "))
            }
        }
    }

    pub(crate) fn equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equal(b)),
            (Self::Map(a), Self::Map(b)) => {
                let (a, b) = (a.borrow(), b.borrow());
                a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| value.equal(other)))
            }
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// The order of two numbers or two texts; `None` when they have none.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Str(a), Self::Str(b)) => Some(a.cmp(b)),
            (Self::Int(_) | Self::Float(_), Self::Int(_) | Self::Float(_)) => {
                self.as_float().partial_cmp(&other.as_float())
            }
            _ => None,
        }
    }

    fn as_float(&self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "Go converts so too")]
            Self::Int(value) => *value as f64,
            Self::Float(value) => *value,
            _ => f64::NAN,
        }
    }
}

/// A float as Go's `%v` writes it: the shortest digits, with an exponent below 1e-4 and from 1e6.
pub(crate) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let exponent = format!("{value:e}").split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or(0);
    if value != 0.0 && !(-4..6).contains(&exponent) {
        let text = format!("{value:e}");
        let (digits, _) = text.split_once('e').unwrap_or((&text, ""));
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    format!("{value}")
}
