//! Does any schema, over any batch, get another verdict than the `jsonschema` crate's? Bytes become a schema and a batch, so that whatever makes
//! bytes can look for one: the property test shrinks what it finds, and the long run (`PROPTEST_CASES`) draws from numbers.

use std::sync::Arc;

use ::arrow::{
    array::*,
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, Fields, Int8Type, Schema, UnionFields},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{check::Rows, contract::Contract, judge::judge, typed::json_field};

/// Bytes that are taken one by one; zeros when they have run out, so that everything ends.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.next()) % count
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..=self.below(most)).map(|_| make(self)).collect()
    }
}

/// Names of columns and of members; some columns have them, and some of each are taken by nothing.
const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "ab", "bé", "", "a/b~c", "x y"];
const TEXTS: [&str; 16] = [
    "",
    "a",
    "abc",
    "äöü",
    "😀😀",
    "NaN",
    "2024-02-29",
    "2024-02-30",
    "10:15:00Z",
    "2013-01-31T10:15:00Z",
    "null",
    "5",
    "{\"a\": null, \"b\": [1, 1.0]}",
    "[1, \"a\", null, 1]",
    "PT1H",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
];
const FLOATS: [f64; 14] = [
    0.0,
    -0.0,
    1.5,
    5.0,
    0.1,
    0.3,
    -2.5,
    1e300,
    9_007_199_254_740_993.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    1e-7,
    4.999_999_999_999_999,
];
const WHOLES: [i64; 12] = [0, 1, -1, 3, 5, 10, i64::MAX, i64::MIN, (1 << 53) + 1, 1 << 53, 100, -15];
const PATTERNS: [&str; 12] =
    ["^a", "ü$", "\\d", "^[a-c]+$", "^(a|abc)$", "^\\S*$", "", "^(?!b)", "(a)\\1", "^(a+)+$", "^\\p{Letter}", "^(?=(a+)+!b)"];
const FORMATS: [&str; 14] = [
    "date",
    "time",
    "date-time",
    "duration",
    "uuid",
    "email",
    "ipv4",
    "hostname",
    "uri",
    "regex",
    "json-pointer",
    "idn-email",
    "made-up",
    "ipv6",
];
const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

fn number(bytes: &mut Bytes<'_>) -> Value {
    match bytes.below(4) {
        0 => bytes.pick(&FLOATS[..9]).into(),
        1 => json!(bytes.next()),
        2 => bytes.pick(&[json!(u64::MAX), json!(0.01), json!(2.5), json!(1e18), json!(0.1), json!(3), json!(9_007_199_254_740_993_u64)]),
        _ => bytes.pick(&WHOLES).into(),
    }
}

fn value(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    match bytes.below(if depth == 0 { 4 } else { 6 }) {
        0 => bytes.pick(&[Value::Null, true.into(), false.into()]),
        1 | 2 => number(bytes),
        3 => bytes.pick(&TEXTS).into(),
        4 => bytes.some(4, |bytes| value(bytes, depth - 1)).into(),
        _ => bytes.some(3, |bytes| (bytes.pick(&NAMES).to_owned(), value(bytes, depth - 1))).into_iter().collect::<Map<_, _>>().into(),
    }
}

fn named(bytes: &mut Bytes<'_>, most: usize, depth: usize) -> Value {
    bytes.some(most, |bytes| (bytes.pick(&NAMES).to_owned(), schema(bytes, depth))).into_iter().collect::<Map<_, _>>().into()
}

fn names(bytes: &mut Bytes<'_>) -> Value {
    let mut names = bytes.some(3, |bytes| bytes.pick(&NAMES));
    names.sort_unstable();
    names.dedup();
    json!(names)
}

/// One keyword.
fn word(bytes: &mut Bytes<'_>, depth: usize) -> (&'static str, Value) {
    let deeper = depth.saturating_sub(1);
    match bytes.below(if depth == 0 { 22 } else { 52 }) {
        0..=2 => ("type", bytes.pick(&TYPES).into()),
        3 | 4 => {
            let mut types = bytes.some(3, |bytes| bytes.pick(&TYPES));
            types.sort_unstable();
            types.dedup();
            ("type", json!(types))
        }
        5 | 6 => {
            let mut values: Vec<Value> = vec![];
            bytes.some(4, |bytes| value(bytes, 1)).into_iter().for_each(|value| {
                if !values.contains(&value) {
                    values.push(value)
                }
            });
            ("enum", values.into())
        }
        7 => ("const", value(bytes, 2)),
        8 => ("minimum", number(bytes)),
        9 => ("maximum", number(bytes)),
        10 => ("exclusiveMinimum", if bytes.below(8) == 0 { true.into() } else { number(bytes) }),
        11 => ("exclusiveMaximum", number(bytes)),
        12 => (
            "multipleOf",
            bytes.pick(&[
                json!(5),
                json!(2),
                json!(0.5),
                json!(1.0),
                json!(0.01),
                json!(0.3),
                json!(1e-7),
                json!(u64::MAX),
                json!(9_007_199_254_740_993_u64),
            ]),
        ),
        13 => ("minLength", bytes.below(6).into()),
        14 => ("maxLength", bytes.pick(&[json!(0), json!(1), json!(3), json!(20), json!(2.0)])),
        15 | 16 => ("pattern", bytes.pick(&PATTERNS).into()),
        17 | 18 => ("format", bytes.pick(&FORMATS).into()),
        19 => ("$ref", bytes.pick(&["#/$defs/a", "#/definitions/b", "#", "#name", "#/$defs/c"]).into()),
        20 => bytes.pick(&[
            ("unit", json!("km")),
            ("description", json!("says nothing")),
            ("contentEncoding", json!("base64")),
            ("$anchor", json!("name")),
        ]),
        21 => ("required", names(bytes)),
        22..=25 => ("properties", named(bytes, 4, deeper)),
        26 => ("required", names(bytes)),
        27 => ("additionalProperties", schema(bytes, deeper)),
        28 => {
            let patterns = bytes.some(2, |bytes| (bytes.pick(&PATTERNS).to_owned(), schema(bytes, deeper)));
            ("patternProperties", patterns.into_iter().collect::<Map<_, _>>().into())
        }
        29 => ("propertyNames", schema(bytes, deeper)),
        30 => ("minProperties", bytes.below(5).into()),
        31 => ("maxProperties", bytes.below(8).into()),
        32 => ("dependentRequired", json!({bytes.pick(&NAMES): names(bytes)})),
        33 => ("dependentSchemas", named(bytes, 2, deeper)),
        34 => ("dependencies", json!({bytes.pick(&NAMES): names(bytes), bytes.pick(&NAMES): schema(bytes, deeper)})),
        35..=37 => ("items", if bytes.below(4) == 0 { bytes.some(3, |bytes| schema(bytes, deeper)).into() } else { schema(bytes, deeper) }),
        38 => ("prefixItems", bytes.some(3, |bytes| schema(bytes, deeper)).into()),
        39 => ("additionalItems", schema(bytes, deeper)),
        40 => ("contains", schema(bytes, deeper)),
        41 => bytes.pick(&[("minContains", json!(0)), ("minContains", json!(2)), ("maxContains", json!(1)), ("maxContains", json!(2))]),
        42 => ("minItems", bytes.below(4).into()),
        43 => ("maxItems", bytes.below(4).into()),
        44 => ("uniqueItems", bytes.pick(&[json!(true), json!(true), json!(false)])),
        45 => ("allOf", bytes.some(2, |bytes| schema(bytes, deeper)).into()),
        46 => ("anyOf", bytes.some(3, |bytes| schema(bytes, deeper)).into()),
        47 => ("oneOf", bytes.some(3, |bytes| schema(bytes, deeper)).into()),
        48 => ("not", schema(bytes, deeper)),
        49 => (bytes.pick(&["if", "then", "else"]), schema(bytes, deeper)),
        50 => bytes.pick(&[("unevaluatedProperties", json!(false)), ("unevaluatedItems", json!(false))]),
        _ => bytes.pick(&[
            ("$dynamicRef", json!("#name")),
            ("$recursiveRef", json!("#")),
            ("$dynamicAnchor", json!("name")),
            ("$id", json!("http://x.y/z")),
        ]),
    }
}

fn schema(bytes: &mut Bytes<'_>, depth: usize) -> Value {
    if bytes.below(12) == 0 {
        return bytes.pick(&[Value::Bool(true), Value::Bool(false), json!({})]);
    }
    bytes.some(4, |bytes| word(bytes, depth)).into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()
}

fn contract(bytes: &mut Bytes<'_>) -> Value {
    let mut schema = match schema(bytes, 3) {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    // Without a type of its own, and a few columns, most would be refused or would judge nothing.
    if bytes.below(8) > 0 {
        schema.insert("type".into(), bytes.pick(&[json!("object"), json!(["object", "null"])]));
    }
    if bytes.below(4) > 0 {
        schema.insert("properties".into(), named(bytes, 6, 2));
    }
    let defs = json!({"a": self::schema(bytes, 1), "c": self::schema(bytes, 2)});
    schema.insert("definitions".into(), json!({"b": self::schema(bytes, 1)}));
    schema.insert("$defs".into(), defs);
    let draft = [
        None,
        Some("https://json-schema.org/draft/2020-12/schema"),
        Some("https://json-schema.org/draft/2019-09/schema"),
        Some("http://json-schema.org/draft-07/schema#"),
        Some("http://json-schema.org/draft-06/schema#"),
        Some("http://json-schema.org/draft-04/schema#"),
    ][bytes.below(6)];
    if let Some(draft) = draft {
        schema.insert("$schema".into(), draft.into());
    }
    schema.into()
}

fn cells<T>(bytes: &mut Bytes<'_>, rows: usize, mut make: impl FnMut(&mut Bytes<'_>) -> T) -> Vec<Option<T>> {
    (0..rows).map(|_| if bytes.below(4) == 0 { None } else { Some(make(bytes)) }).collect()
}

fn nulls(bytes: &mut Bytes<'_>, rows: usize) -> Option<NullBuffer> {
    (bytes.below(2) == 0).then(|| (0..rows).map(|_| bytes.below(4) > 0).collect())
}

/// A column of any type, with so many rows.
fn array(bytes: &mut Bytes<'_>, rows: usize, depth: usize) -> ArrayRef {
    let texts = |bytes: &mut Bytes<'_>| cells(bytes, rows, |bytes| bytes.pick(&TEXTS));
    match bytes.below(if depth == 0 { 21 } else { 29 }) {
        0 | 1 => Arc::new(Int64Array::from(cells(bytes, rows, |bytes| bytes.pick(&WHOLES)))),
        2 => Arc::new(UInt64Array::from(cells(bytes, rows, |bytes| bytes.pick(&[0, 5, u64::MAX, 1 << 63])))),
        3 => Arc::new(Int8Array::from(cells(bytes, rows, |bytes| bytes.next() as i8))),
        4 | 5 => Arc::new(Float64Array::from(cells(bytes, rows, |bytes| bytes.pick(&FLOATS)))),
        #[expect(clippy::cast_possible_truncation, reason = "any float will do")]
        6 => Arc::new(Float32Array::from(cells(bytes, rows, |bytes| bytes.pick(&FLOATS) as f32))),
        7..=9 => Arc::new(StringArray::from(texts(bytes))),
        10 => Arc::new(StringViewArray::from(texts(bytes))),
        11 => Arc::new(texts(bytes).into_iter().collect::<DictionaryArray<Int8Type>>()),
        12 => Arc::new(BooleanArray::from(cells(bytes, rows, |bytes| bytes.below(2) == 0))),
        13 => Arc::new(NullArray::new(rows)),
        14 => Arc::new(Date32Array::from(cells(bytes, rows, |bytes| bytes.pick(&[0, -719_162, -719_163, 2_932_896, 2_932_897, i32::MIN])))),
        15 => {
            let values = cells(bytes, rows, |bytes| bytes.pick(&[0, -62_135_596_800_000, 253_402_300_800_000, i64::MIN, 1_500]));
            let array = TimestampMillisecondArray::from(values);
            if bytes.below(2) == 0 { Arc::new(array) } else { Arc::new(array.with_timezone("UTC")) }
        }
        16 => Arc::new(Time64MicrosecondArray::from(cells(bytes, rows, |bytes| {
            bytes.pick(&[0, 1, 36_900_000_000, 86_400_000_000, -1, i64::MAX])
        }))),
        17 | 18 => {
            const DIGITS: [i128; 9] = [0, 5, 500, 501, -100, 30, 107_046_814, 99_999_999_999_999_999_999, 12_345_678_901_234_567_890];
            let values = Decimal128Array::from(cells(bytes, rows, |bytes| bytes.pick(&DIGITS)));
            Arc::new(values.with_precision_and_scale(38, bytes.pick(&[2, 0, 7, 16, -2])).expect("decimals"))
        }
        19 => Arc::new(BinaryArray::from_iter(cells(bytes, rows, |bytes| bytes.pick(&TEXTS)))),
        20 => Arc::new(DurationSecondArray::from(cells(bytes, rows, |bytes| bytes.pick(&[0, 3_600, -1, i64::MAX])))),
        21..=23 => {
            let lengths: Vec<usize> = (0..rows).map(|_| bytes.below(4)).collect();
            let items = array(bytes, lengths.iter().sum(), depth - 1);
            let field = field(bytes, "item", &items);
            Arc::new(ListArray::new(Arc::new(field), OffsetBuffer::from_lengths(lengths), items, nulls(bytes, rows)))
        }
        24 => {
            let size = bytes.below(3) + 1;
            let items = array(bytes, rows * size, depth - 1);
            let field = field(bytes, "item", &items);
            Arc::new(FixedSizeListArray::new(Arc::new(field), i32::try_from(size).expect("small"), items, nulls(bytes, rows)))
        }
        25..=27 => {
            let (mut fields, mut columns) = (vec![], vec![]);
            for _ in 0..=bytes.below(4) {
                let member = array(bytes, rows, depth - 1);
                let name = bytes.pick(&NAMES);
                fields.push(field(bytes, name, &member));
                columns.push(member);
            }
            Arc::new(StructArray::new(Fields::from(fields), columns, nulls(bytes, rows)))
        }
        _ => {
            let (first, second) = (array(bytes, rows, 0), array(bytes, rows, 0));
            let kinds: Vec<i8> = (0..rows).map(|_| i8::from(bytes.below(2) == 0)).collect();
            let fields = [(0, Field::new("0", first.data_type().clone(), true)), (1, Field::new("1", second.data_type().clone(), true))];
            let fields: UnionFields = fields.into_iter().map(|(kind, field)| (kind, Arc::new(field))).collect();
            Arc::new(UnionArray::try_new(fields, kinds.into(), None, vec![first, second]).expect("a union"))
        }
    }
}

/// A column's field; texts may be said to be JSON.
fn field(bytes: &mut Bytes<'_>, name: &str, array: &ArrayRef) -> Field {
    match array.data_type() {
        DataType::Utf8 | DataType::Dictionary(..) if bytes.below(3) == 0 => json_field(name, array),
        _ => Field::new(name, array.data_type().clone(), true),
    }
}

fn batch(bytes: &mut Bytes<'_>) -> RecordBatch {
    let rows = bytes.below(20);
    let (mut fields, mut columns) = (vec![], vec![]);
    for _ in 0..=bytes.below(8) {
        let column = array(bytes, rows, 2);
        let name = bytes.pick(&NAMES);
        fields.push(field(bytes, name, &column));
        columns.push(column);
    }
    let whole = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch");
    // Rows come in slices too.
    let start = bytes.below(rows + 1);
    whole.slice(start, rows - start)
}

/// Judges what the bytes say. Returns what is wrong, or whether there was a contract and how many of its rows were valid.
fn hold(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut bytes = Bytes(bytes);
    let (schema, batch) = (contract(&mut bytes), batch(&mut bytes));
    let Ok(contract) = Contract::compile("test", &schema.to_string()) else { return Ok(None) };
    let judged = judge(&contract, &mut Rows::new(&batch, &contract.rules), batch.num_rows());
    let verdict = contract.check(&batch);
    let mut rows = Rows::new(&batch, &contract.rules);
    for row in 0..batch.num_rows() {
        let shown = rows.at(row);
        let says = contract.validator.is_valid(shown);
        let checked = verdict.valid.as_ref().is_none_or(|valid| valid.value(row));
        if judged.value(row) != says || checked != says {
            return Err(format!("crate {says}, judged {}, checked {checked}: {shown}\n{schema}\n{}", judged.value(row), batch.schema()));
        }
    }
    Ok(Some((batch.num_rows(), judged.count_set_bits())))
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_another_verdict_than_the_crates(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Err(wrong) = hold(&bytes) {
            prop_assert!(false, "{}", wrong);
        }
    }
}

#[test]
fn no_numbers_make_another_verdict_than_the_crates() {
    let cases = u64::from(ProptestConfig::default().cases) * 4;
    let (mut contracts, mut all, mut good) = (0, 0, 0);
    for case in 0..cases {
        // A known sequence (splitmix64), so that what fails can be run again.
        let mut state = case.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let bytes: Vec<u8> = (0..100)
            .flat_map(|_| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                (mixed ^ mixed >> 31).to_le_bytes()
            })
            .collect();
        match hold(&bytes) {
            Ok(Some((rows, valid))) => {
                contracts += 1;
                all += rows;
                good += valid;
            }
            Ok(None) => {}
            Err(wrong) => panic!("case {case}: {wrong}"),
        }
    }
    assert!(contracts * 4 > cases && all > good && good * 50 > all, "{contracts} contracts of {cases}, {good} of {all} rows valid");
}
