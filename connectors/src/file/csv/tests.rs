//! CSV from bytes to rows: each rule of the format, and any table against a naive reader of one character at a time.

use arrow::{
    array::{AsArray, Decimal128Array},
    compute::cast,
    datatypes::{DataType, Field, Int64Type, Schema, TimeUnit},
};
use proptest::prelude::*;

use super::*;

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>()))
}

/// All of a file in one block.
fn decode(format: &CsvFormat, file: &[u8], wanted: &SchemaRef) -> Decoded {
    let start = format.decoder(file, wanted.clone(), None).unwrap();
    start.decoder.decode(&file[start.skipped_bytes..], 1 + start.skipped_lines).unwrap()
}

fn texts(array: &ArrayRef) -> Vec<Option<String>> {
    cast(array, &DataType::Utf8).unwrap().as_string::<i32>().iter().map(|v| v.map(str::to_owned)).collect()
}

fn table(batch: &RecordBatch) -> Vec<Vec<Option<String>>> {
    let columns: Vec<_> = batch.columns().iter().map(texts).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

/// The values of a column `v` of a type, and the reasons of its bad rows.
fn column(kind: DataType, values: &[&str]) -> (Vec<Option<String>>, Vec<(u64, &'static str, String)>) {
    let file = format!("v,x\n{}", values.iter().map(|v| format!("{v},\n")).collect::<String>());
    let decoded = decode(&CsvFormat::default(), file.as_bytes(), &schema(&[("v", kind)]));
    let bad = decoded.bad.iter().map(|b| {
        assert_eq!(b.column.as_deref(), Some("v"));
        (b.line, b.code, b.reason.clone())
    });
    let bad = bad.collect();
    (texts(decoded.rows.column(0)), bad)
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|v| Some((*v).to_owned())).collect()
}

#[test]
fn an_integer_column_takes_whole_numbers_that_fit() {
    let (values, bad) =
        column(DataType::Int64, &["1", " -7 ", "\"12\"", "9223372036854775807", "00501", "", "-9223372036854775808", "   "]);
    let mut expected = some(&["1", "-7", "12", "9223372036854775807", "501"]);
    expected.extend([None, Some("-9223372036854775808".into()), None]);
    assert_eq!((values, bad), (expected, vec![]));
    for wrong in ["1.0", "9223372036854775808", "abc", "\"\"", "1 2", "0x1"] {
        let (values, bad) = column(DataType::Int64, &["1", wrong, "2"]);
        assert_eq!(values, some(&["1", "2"]), "{wrong}");
        assert_eq!((bad[0].0, bad[0].1), (3, "wrong-type"), "{wrong}");
    }
    assert_eq!(column(DataType::Int8, &["127", "128"]).1, [(3, "wrong-type", "expected int8, found \"128\"".to_owned())]);
    assert_eq!(
        column(DataType::UInt64, &["18446744073709551615", "-1"]).1,
        [(3, "wrong-type", "expected uint64, found \"-1\"".to_owned())]
    );
}

#[test]
fn every_type_is_read_from_its_text() {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let cases = [
        (DataType::Float64, "1.5", "1.5"),
        (DataType::Float32, "-2e3", "-2000.0"),
        (DataType::Boolean, "TRUE", "true"),
        (DataType::Date32, "2013-02-28", "2013-02-28"),
        (DataType::Time64(TimeUnit::Microsecond), "23:59:59.5", "23:59:59.500"),
        (DataType::Timestamp(TimeUnit::Millisecond, None), "2013-01-01 05:00", "2013-01-01T05:00:00"),
        (utc.clone(), "2013-01-01T05:00:00-05:00", "2013-01-01T10:00:00Z"),
        (DataType::Decimal128(10, 2), "12.3", "12.30"),
        (DataType::LargeUtf8, " x ", " x "),
    ];
    for (kind, text, expected) in cases {
        assert_eq!(column(kind.clone(), &[text, &format!("\"{text}\"")]), (some(&[expected, expected]), vec![]), "{kind}");
    }
    for (kind, wrong) in [
        (DataType::Float64, "\"1,5\""),
        (DataType::Boolean, "1"),
        (DataType::Date32, "2013-02-29"),
        (DataType::Time64(TimeUnit::Microsecond), "24:00"),
        (DataType::Timestamp(TimeUnit::Second, None), "2013-01-01T05:00:00Z"),
        (DataType::Timestamp(TimeUnit::Second, None), "2013-01-01T05:00:00.5"),
        (utc, "2013-01-01T05:00:00"),
        (DataType::Decimal128(10, 2), "12.345"),
        (DataType::Binary, "*"),
        (DataType::Null, "x"),
    ] {
        let (values, bad) = column(kind.clone(), &[wrong]);
        assert_eq!((values.len(), bad.len()), (0, 1), "{kind}");
        assert!(bad[0].2.starts_with("expected ") && bad[0].2.contains("found "), "{}", bad[0].2);
    }
    let decoded = decode(&CsvFormat::default(), b"v\naGk=\n", &schema(&[("v", DataType::Binary)]));
    assert_eq!(decoded.rows.column(0).as_binary::<i32>().value(0), b"hi");
}

#[test]
fn null_is_nothing_between_delimiters_or_an_unquoted_spelling_of_it() {
    let format = CsvFormat { null: vec!["NA".into(), "-1".into()], ..CsvFormat::default() };
    let file = b"a,b\nNA,NA\n\"NA\",-1\n,\n\"\",7\nNAN, NA \n";
    let decoded = decode(&format, file, &schema(&[("a", DataType::Utf8), ("b", DataType::Int64)]));
    assert_eq!(texts(decoded.rows.column(0)), [None, Some("NA".into()), None, Some(String::new()), Some("NAN".into())]);
    assert_eq!(texts(decoded.rows.column(1)), [None, None, None, Some("7".into()), None]);
    assert_eq!(decoded.bad, []);
}

#[test]
fn a_decimal_comma_stands_for_the_point_alone() {
    let format = CsvFormat { delimiter: b';', decimal_comma: true, ..CsvFormat::default() };
    let decoded =
        decode(&format, b"f;d\n1,5;2,50\n-0,25;3\n1.5;1\n", &schema(&[("f", DataType::Float64), ("d", DataType::Decimal128(9, 2))]));
    assert_eq!(decoded.rows.column(0).as_primitive::<arrow::datatypes::Float64Type>().values(), &[1.5, -0.25]);
    assert_eq!(decoded.rows.column(1).as_any().downcast_ref::<Decimal128Array>().unwrap().values(), &[250, 300]);
    assert_eq!(decoded.bad[0].reason, "expected float64, found \"1.5\"");
}

#[test]
fn columns_go_by_name_and_one_that_the_file_lacks_is_null() {
    let wanted = schema(&[("b", DataType::Int64), ("c", DataType::Utf8), ("a", DataType::Utf8)]);
    let rows = table(&decode(&CsvFormat::default(), b"\xEF\xBB\xBF\" a\",b\r\nx,1\r\ny,2", &schema(&[])).rows);
    assert_eq!(rows, [vec![], vec![]] as [Vec<Option<String>>; 2], "no columns wanted: rows are counted");
    assert_eq!(
        table(&decode(&CsvFormat::default(), b" a ,b\r\nx,1\r\ny,2", &wanted).rows),
        [vec![Some("1".into()), None, Some("x".into())], vec![Some("2".into()), None, Some("y".into())]]
    );
    let bare = CsvFormat { header: false, ..CsvFormat::default() };
    assert_eq!(table(&decode(&bare, b"x,1\n", &schema(&[("column_2", DataType::Int64)])).rows), [vec![Some("1".to_owned())]]);
}

#[test]
fn a_header_must_name_each_column_once() {
    let error = |file: &[u8]| CsvFormat::default().decoder(file, schema(&[]), None).unwrap_err();
    assert_eq!(error(b"a,,b\n").message, "the header has no name for column 2");
    assert_eq!(error(b"a,b, a\n").message, "the header has \"a\" twice, as columns 1 and 3");
    assert_eq!(error(b"").code, "csv-header-missing");
    assert_eq!(error(b"\"a\n").code, "csv-header");
    assert_eq!(decode(&CsvFormat::default(), b"a,b\n", &schema(&[("a", DataType::Int64)])).rows.num_rows(), 0);
    let nested = schema(&[("a", DataType::List(Arc::new(Field::new("item", DataType::Int64, true))))]);
    assert_eq!(CsvFormat::default().decoder(b"a\n", nested, None).unwrap_err().setting.as_deref(), Some("format"));
    let twice = CsvFormat { comment: Some(b','), ..CsvFormat::default() };
    assert_eq!(twice.decoder(b"a\n", schema(&[]), None).unwrap_err().setting.as_deref(), Some("csv.comment"));
}

#[test]
fn bad_records_say_where_and_why_and_their_neighbours_load() {
    let format = CsvFormat { lines: true, comment: Some(b'#'), ..CsvFormat::default() };
    let file = b"# c\na,b\n1,\"x\ny\"\n\n2\n3,z\nq,w\n# note, \"\n4,\"v\"w\n5,\xFF\n6,\"open\n7,end";
    let wanted = schema(&[("a", DataType::Int64), ("b", DataType::Utf8)]);
    let decoded = decode(&format, file, &wanted);
    assert_eq!(texts(decoded.rows.column(0)), some(&["1", "3", "7"]));
    assert_eq!(texts(decoded.rows.column(1)), some(&["x\ny", "z", "end"]));
    assert_eq!(decoded.lines.values(), &[3, 7, 13]);
    let bad: Vec<_> = decoded.bad.iter().map(|b| (b.line, b.code, b.column.as_deref(), b.reason.as_str(), b.raw.as_str())).collect();
    assert_eq!(
        bad,
        [
            (6, "malformed", None, "expected 2 fields, found 1", "2"),
            (8, "wrong-type", Some("a"), "expected int64, found \"q\"", "q,w"),
            (10, "malformed", None, "a quoted value is not closed, or text follows its closing quote", "4,\"v\"w"),
            (11, "malformed", Some("b"), "\"\u{FFFD}\" is not UTF-8", "5,\u{FFFD}"),
            (12, "malformed", None, "a quoted value is not closed, or text follows its closing quote", "6,\"open"),
        ]
    );
}

#[test]
fn a_record_that_is_too_long_is_cut_in_its_report() {
    let format = CsvFormat { record_max_bytes: 100_000, ..CsvFormat::default() };
    let file = format!("a\n1\n{}\n2\n", "é".repeat(60_000));
    let decoded = decode(&format, file.as_bytes(), &schema(&[("a", DataType::Utf8)]));
    assert_eq!(texts(decoded.rows.column(0)), some(&["1", "2"]));
    assert_eq!(decoded.bad[0].reason, "record is longer than 100000 bytes");
    assert!(decoded.bad[0].raw.ends_with("é… (cut, 120000 bytes in all)"), "{}", &decoded.bad[0].raw[65_000..]);
}

#[test]
fn a_column_that_may_not_be_null_refuses_null() {
    let wanted: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8, false)]));
    let decoded = decode(&CsvFormat::default(), b"a,b\n1,x\n,y\n2,\n", &wanted);
    assert_eq!(decoded.rows.num_rows(), 1);
    assert_eq!(
        decoded.bad.iter().map(|b| b.reason.as_str()).collect::<Vec<_>>(),
        ["expected int64, found null", "expected text, found null"]
    );
}

fn inferred(file: &str) -> Vec<(String, Option<DataType>)> {
    let mut state = Inference::default();
    CsvFormat { null: vec!["NA".into()], ..CsvFormat::default() }.infer(true, file.as_bytes(), &mut state).unwrap();
    state.columns.into_iter().collect()
}

#[test]
fn the_narrowest_type_that_holds_every_value_is_inferred() {
    let stamp = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    for (values, expected) in [
        (&["1", "-20", "NA", "\"3\""][..], Some(DataType::Int64)),
        (&["00501", "1"], Some(DataType::Utf8)),
        (&["+1"], Some(DataType::Utf8)),
        (&["9223372036854775808"], Some(DataType::Utf8)),
        (&["1", "2.5", "3", "1e5"], Some(DataType::Float64)),
        (&["-00.5"], Some(DataType::Utf8)),
        (&["0.5", "-.5", "0"], Some(DataType::Float64)),
        (&["nan", "1.5"], Some(DataType::Utf8)),
        (&["true", "FALSE"], Some(DataType::Boolean)),
        (&["true", "1"], Some(DataType::Utf8)),
        (&["2013-01-01", "NA"], Some(DataType::Date32)),
        (&["2013-01-01", "2013-01-01 05:00:00"], Some(stamp(None))),
        (&["2013-01-01T05:00:00Z", "2013-01-01T05:00:00+01:00"], Some(stamp(Some("UTC")))),
        (&["2013-01-01T05:00:00Z", "2013-01-01T05:00:00"], Some(DataType::Utf8)),
        (&["1", "\"\""], Some(DataType::Utf8)),
        (&["NA", "", "  "], None),
    ] {
        let file = format!("v,x\n{}", values.iter().map(|v| format!("{v},\n")).collect::<String>());
        assert_eq!(inferred(&file)[0].1, expected, "{values:?}");
        let wanted = schema(&[("v", expected.unwrap_or(DataType::Utf8))]);
        let format = CsvFormat { null: vec!["NA".into()], ..CsvFormat::default() };
        assert_eq!(decode(&format, file.as_bytes(), &wanted).rows.num_rows(), values.len(), "what is inferred is read: {values:?}");
    }
}

proptest! {
    #[test]
    fn a_guess_is_refuted_just_where_all_records_tell_another_type(
        values in prop::collection::vec((0usize..36, any::<bool>()), 1..60),
        kinds in prop::collection::vec(0usize..36, 1..4),
        is_read in any::<bool>(),
        known in 0usize..60,
    ) {
        let pool = [
            "", "1", "-7", "9223372036854775807", "0", "1.5", "-0.25", "1e3", "true", "FALSE", "2013-01-01", "2024-02-29", "2013-01-01 10:00",
            "2013-01-01T10:00:00Z", "2013-01-01 10:00:00.123456", "2013-01-01T10:00:00+02:00", "007", "+1", "nan", "x", "\"\"", "\"3\"", " 4 ", "NA",
            "-0", "-07", "00.5", "-00.5", ".5", "5.", "99999999999999999999", "-999999999999999999", "1E400", "0e0", "1.7976931348623157e308", "inf",
        ];
        // Mostly of a few kinds, so that guesses are borne out as well.
        let values: Vec<&str> = values.iter().map(|(at, any)| pool[if *any && at % 7 == 0 { *at } else { kinds[at % kinds.len()] }]).collect();
        let known = known.min(values.len());
        let lines = |values: &[&str]| values.iter().map(|value| format!("{value},\n")).collect::<String>();
        let guess = inferred(&format!("v,x\n{}", lines(&values[..known])));
        let all = inferred(&format!("v,x\n{}", lines(&values)));
        let format = CsvFormat { null: vec!["NA".into()], ..CsvFormat::default() };
        let wanted = if is_read { schema(&[("v", guess[0].1.clone().unwrap_or(DataType::Utf8))]) } else { schema(&[("x", DataType::Utf8)]) };
        let decoder = format.decoder(b"v,x\n", wanted, Some(&guess.iter().cloned().collect())).unwrap().decoder;
        match decoder.decode(lines(&values).as_bytes(), 2) {
            Ok(decoded) => {
                prop_assert_eq!(&guess, &all);
                prop_assert_eq!((decoded.rows.num_rows(), decoded.bad), (values.len(), vec![]));
            }
            Err(error) => {
                prop_assert_eq!(error.code, "types-guessed");
                prop_assert_ne!(&guess, &all);
            }
        }
    }
}

#[test]
fn a_column_that_nobody_reads_is_held_against_its_guess_as_well() {
    let guess = Guess::from_iter([("a".to_owned(), Some(DataType::Int64)), ("b".to_owned(), None), ("c".to_owned(), Some(DataType::Utf8))]);
    let decoder = CsvFormat::default().decoder(b"a,b,c\n", schema(&[("c", DataType::Utf8)]), Some(&guess)).unwrap().decoder;
    assert_eq!(decoder.decode(b"1,,x\n-2,,\n", 2).unwrap().rows.num_rows(), 2);
    let said = |block: &[u8]| decoder.decode(block, 2).unwrap_err().message;
    assert_eq!(said(b"1,,x\n1.5,,x\n"), "column \"a\" was taken for int64 by the first records, and is not in another");
    assert_eq!(said(b"1,2,x\n"), "column \"b\" was taken for empty by the first records, and is not in another");
}

#[test]
fn inference_goes_on_over_blocks_and_files() {
    let (format, mut state) = (CsvFormat::default(), Inference::default());
    format.infer(true, b"a,b\n1,x\n", &mut state).unwrap();
    format.infer(false, b"2.5,y\n", &mut state).unwrap();
    format.infer(true, b"c,a\ntrue,1\n", &mut state).unwrap();
    let columns: Vec<_> = state.columns.iter().map(|(name, kind)| (name.as_str(), kind.clone())).collect();
    assert_eq!(columns, [("a", Some(DataType::Float64)), ("b", Some(DataType::Utf8)), ("c", Some(DataType::Boolean))]);
    assert_eq!((state.records, state.current), (3, vec![2, 0]));
}

/// The rules once more, one character at a time: rows of values, and how many records are bad.
fn naive(file: &str, fields: usize) -> (Vec<Vec<Option<String>>>, usize) {
    let (chars, mut at, mut rows, mut bad) = (file.chars().collect::<Vec<_>>(), 0, vec![], 0);
    while at < chars.len() {
        let start = at;
        let (mut row, mut broken) = (vec![], false);
        'record: loop {
            let mut value = String::new();
            if chars.get(at) == Some(&'"') {
                at += 1;
                loop {
                    match (chars.get(at), chars.get(at + 1)) {
                        (None, _) => {
                            broken = true;
                            break 'record;
                        }
                        (Some('"'), Some('"')) => {
                            value.push('"');
                            at += 2;
                        }
                        (Some('"'), _) => {
                            at += 1;
                            break;
                        }
                        (Some(c), _) => {
                            value.push(*c);
                            at += 1;
                        }
                    }
                }
                row.push(Some(value));
                if chars.get(at) == Some(&'\r') && matches!(chars.get(at + 1), None | Some('\n')) {
                    at += 1;
                }
                if !matches!(chars.get(at), None | Some(',' | '\n')) {
                    broken = true;
                    break;
                }
            } else {
                while !matches!(chars.get(at), None | Some(',' | '\n')) {
                    value.push(chars[at]);
                    at += 1;
                }
                if chars.get(at) != Some(&',') && value.ends_with('\r') {
                    value.pop();
                }
                row.push((!value.is_empty()).then_some(value));
            }
            at += 1;
            if chars.get(at - 1) != Some(&',') {
                break;
            }
        }
        if broken {
            at = chars[start..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| start + n + 1);
            bad += 1;
        } else if row.len() == fields {
            rows.push(row);
        } else if row != [None] {
            bad += 1;
        }
    }
    (rows, bad)
}

fn wanted_texts(fields: usize) -> SchemaRef {
    Arc::new(Schema::new((1..=fields).map(|n| Field::new(format!("column_{n}"), DataType::Utf8, true)).collect::<Vec<_>>()))
}

/// Decodes a headerless file of `fields` columns in blocks of whatever `cuts` say.
fn decode_cut(file: &[u8], fields: usize, cuts: &[usize]) -> (Vec<Vec<Option<String>>>, Vec<u64>, Vec<BadRecord>) {
    let format = CsvFormat { header: false, lines: true, ..CsvFormat::default() };
    let first = vec!["x"; fields].join(",");
    let decoder = format.decoder(first.as_bytes(), wanted_texts(fields), None).unwrap().decoder;
    let (mut rows, mut lines, mut bad) = (vec![], vec![], vec![]);
    let (mut at, mut line, mut size, mut cut) = (0, 1, 0, cuts.iter().cycle());
    while at < file.len() {
        size += cut.next().unwrap();
        let block = &file[at..(at + size).min(file.len())];
        let whole = format.whole_records(block, at + block.len() == file.len());
        if whole > 0 {
            let decoded = decoder.decode(&block[..whole], line).unwrap();
            rows.extend(table(&decoded.rows));
            lines.extend(decoded.lines.values());
            bad.extend(decoded.bad);
            line += super::lines(&block[..whole]);
            at += whole;
            size = 0;
        }
    }
    (rows, lines, bad)
}

fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just(",".to_owned()),
        3 => Just("\n".to_owned()),
        1 => Just("\r\n".to_owned()),
        2 => Just("\"".to_owned()),
        1 => Just("\"\"".to_owned()),
        3 => "[a-zé \r]{0,20}",
        3 => "\"[a-z,\n]{0,30}\"",
        2 => "[a-z]{1,3},[a-z]{1,3}\n",
    ];
    prop::collection::vec(piece, 0..80).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_reads_as_the_naive_reader_reads_it(file in soup(), fields in 1usize..4, cuts in prop::collection::vec(1usize..90, 1..5)) {
        let (rows, bad) = naive(&file, fields);
        let whole = decode_cut(file.as_bytes(), fields, &[usize::MAX / 4]);
        prop_assert_eq!(&whole.0, &rows);
        prop_assert_eq!(whole.2.len(), bad);
        prop_assert_eq!(whole, decode_cut(file.as_bytes(), fields, &cuts));
    }

    #[test]
    fn a_table_written_is_the_table_read(rows in prop::collection::vec(prop::collection::vec(prop::option::of("[ -~é\n\r\"]{0,40}"), 3), 0..40), crlf: bool) {
        let end = if crlf { "\r\n" } else { "\n" };
        let field = |v: &Option<String>| v.as_ref().map_or(String::new(), |v| format!("\"{}\"", v.replace('"', "\"\"")));
        let file: String = rows.iter().map(|row| row.iter().map(field).collect::<Vec<_>>().join(",") + end).collect();
        let (read, _, bad) = decode_cut(file.as_bytes(), 3, &[64]);
        prop_assert_eq!(bad, vec![]);
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn no_bytes_make_it_panic_and_every_line_is_accounted_for(file in prop::collection::vec(prop_oneof![any::<u8>(), Just(b','), Just(b'\n'), Just(b'"'), b'0'..=b'9'], 0..600)) {
        let kinds = [DataType::Int32, DataType::Float64, DataType::Utf8];
        let columns: Vec<_> = kinds.iter().enumerate().map(|(i, kind)| Field::new(format!("column_{}", i + 1), kind.clone(), true)).collect();
        let format = CsvFormat { header: false, quote: None, ..CsvFormat::default() };
        let decoder = format.decoder(b",,\n", Arc::new(Schema::new(columns)), None).unwrap().decoder;
        let decoded = decoder.decode(&file, 1).unwrap();
        let records = file.split(|b| *b == b'\n').filter(|line| !matches!(line, [] | [b'\r'])).count();
        prop_assert_eq!(decoded.rows.num_rows() + decoded.bad.len(), records);
        decode_cut(&file, 3, &[50]);
    }

    #[test]
    fn numbers_read_as_they_were_written(values in prop::collection::vec((any::<i64>(), any::<f64>().prop_filter("finite", |f| f.is_finite())), 1..50)) {
        let file: String = values.iter().map(|(i, f)| format!("{i},{f:e}\n")).collect();
        let wanted = schema(&[("i", DataType::Int64), ("f", DataType::Float64)]);
        let decoded = decode(&CsvFormat::default(), format!("i,f\n{file}").as_bytes(), &wanted);
        prop_assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values().to_vec(), values.iter().map(|v| v.0).collect::<Vec<_>>());
        prop_assert_eq!(decoded.rows.column(1).as_primitive::<arrow::datatypes::Float64Type>().values().to_vec(), values.iter().map(|v| v.1).collect::<Vec<_>>());
    }
}
