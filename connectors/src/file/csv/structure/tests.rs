//! The 64-byte reader in all its builds against the record-by-record one, and that one against the rules.

use super::*;

fn structure(fields: usize) -> Structure {
    Structure { delimiter: b',', quote: Some(b'"'), comment: None, record_max: 1 << 20, fields }
}

/// Rows as texts of fields (quotes and CR as written), and broken records.
fn read(index: &Index, s: &Structure, block: &[u8]) -> Vec<Vec<String>> {
    index
        .rows
        .iter()
        .map(|&row| {
            (0..s.fields)
                .map(|i| row as usize + i)
                .map(|i| String::from_utf8_lossy(&block[index.starts()[i] as usize..index.starts()[i + 1] as usize - 1]).into_owned())
                .collect()
        })
        .collect()
}

type Walk = fn(&Structure, &[u8], usize, usize, bool, &mut Index) -> usize;

fn walks() -> Vec<(&'static str, Walk, Walk)> {
    let mut all: Vec<(&'static str, Walk, Walk)> =
        vec![("portable", Structure::scan::<Portable, true>, Structure::scan::<Portable, false>)];
    #[cfg(target_arch = "x86_64")]
    {
        all.push(("sse2", Structure::scan::<x86::Sse2, true>, Structure::scan::<x86::Sse2, false>));
        fn avx2<const INDEX: bool>(s: &Structure, b: &[u8], from: usize, target: usize, end: bool, index: &mut Index) -> usize {
            assert!(x86::fast());
            // SAFETY: `fast` holds.
            unsafe { x86::scan_avx2::<INDEX>(s, b, from, target, end, index) }
        }
        if x86::fast() {
            all.push(("avx2", avx2::<true>, avx2::<false>));
        }
    }
    all
}

/// Everything a walk says of a block, in strips of `strip` bytes.
fn all(walk: Walk, s: &Structure, block: &[u8], strip: usize) -> (Vec<Vec<String>>, Vec<Broken>) {
    let (mut at, mut index, mut rows, mut broken) = (0, Index::default(), vec![], vec![]);
    while at < block.len() {
        let next = walk(s, block, at, at + strip, true, &mut index);
        assert!(next > at, "no progress at {at} of {:?}", String::from_utf8_lossy(block));
        rows.extend(read(&index, s, block));
        broken.append(&mut index.broken);
        at = next;
    }
    (rows, broken)
}

/// xorshift64*, seeded: the same blocks on every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below
    }
}

fn soup(random: &mut Random, pieces: &[&str], length: usize) -> Vec<u8> {
    let mut block = vec![];
    while block.len() < length {
        block.extend_from_slice(pieces[random.next(pieces.len())].as_bytes());
    }
    block
}

#[test]
fn every_build_agrees_with_the_record_reader_on_any_bytes() {
    let mut random = Random(7);
    let soups: [&[&str]; 5] = [
        &["a", "bc", ",", ",", "\n", "\r\n", "\""],
        &["a,b\n", "\"q\",r\n", "\"x,\ny\",\"\"\r\n", "\"a\"\"b\",c\n", "long unquoted text,", "z\n"],
        &["\"\"", "\"", ",", "\n", "\r", "x"],
        &["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ",", "\n", "\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"", ","],
        &["1,2,3\n", "1,2\n", "\n", "\"open,1,2\n", "\"junk\"x,1,2\n", "5\" pipe,1,2\n"],
    ];
    for round in 0..4000 {
        let length = 1 + random.next(700);
        let block = soup(&mut random, soups[round % soups.len()], length);
        let mut s = structure(1 + random.next(3));
        if round % 7 == 0 {
            s.record_max = 1 + random.next(100);
        }
        if round % 11 == 0 {
            s.quote = None;
        }
        let expected = all(Structure::walk_slowly::<true>, &s, &block, usize::MAX / 2);
        let whole = Structure::walk_slowly::<false>(&s, &block, 0, usize::MAX, false, &mut Index::default());
        for (name, walk, last) in walks() {
            for strip in [1, 100, usize::MAX / 2] {
                assert_eq!(all(walk, &s, &block, strip), expected, "{name} {s:?} {:?}", String::from_utf8_lossy(&block));
            }
            let found = last(&s, &block, 0, usize::MAX, false, &mut Index::default());
            assert_eq!(found, whole, "{name} {s:?} {:?}", String::from_utf8_lossy(&block));
        }
    }
}

#[test]
fn where_a_block_is_cut_never_changes_its_records() {
    let mut random = Random(11);
    let soups: [&[&str]; 3] = [
        &["a,b\n", "\"q\",r\n", "\"x,\ny\",\"\"\r\n", "\"a\"\"b\",c\n", "long text,", "z\n", "\"open,1\n", "\"junk\"x,1\n"],
        &["\"\"", "\"", ",", "\n", "\r\n", "x"],
        &["# \"note, \n", "a,b\n", "\"#x\",\"\n\"\n"],
    ];
    for round in 0..4000 {
        let length = 1 + random.next(400);
        let block = soup(&mut random, soups[round % soups.len()], length);
        let mut s = structure(2);
        s.record_max = 60;
        s.comment = (round % 3 == 2).then_some(b'#');
        let walk: Walk = if s.comment.is_some() { Structure::walk_slowly::<true> } else { Structure::scan::<Portable, true> };
        let expected = all(walk, &s, &block, usize::MAX / 2);
        let (mut at, mut held, mut rows, mut broken) = (0, 1 + random.next(20), vec![], vec![]);
        while at < block.len() {
            let end = (at + held).min(block.len());
            let part = &block[at..end];
            let whole = if end == block.len() { part.len() } else { s.whole(part) };
            if whole == 0 {
                held += 1 + random.next(30);
                continue;
            }
            let (r, b) = all(walk, &s, &part[..whole], usize::MAX / 2);
            rows.extend(r);
            broken.extend(b.into_iter().map(|b| Broken { start: b.start + at, end: b.end + at, ..b }));
            at += whole;
            held = 1 + random.next(100);
        }
        let spans = |all: &[Broken]| all.iter().map(|b| (b.start, b.end)).collect::<Vec<_>>();
        assert_eq!((rows, spans(&broken)), (expected.0, spans(&expected.1)), "{:?}", String::from_utf8_lossy(&block));
    }
}

#[test]
fn a_record_reader_that_has_record_max_bytes_and_a_line_end_always_decides() {
    let s = Structure { record_max: 9, ..structure(2) };
    assert_eq!(s.whole(b"\"abc\ndefgh"), 5, "the quote is not closed in time: the first line is given up");
    assert_eq!(s.whole(b"\"abc\ndefg"), 0, "it may still be");
    assert_eq!(s.whole(b"abcdefghijklmnopq"), 0, "no line end");
}

fn fields(text: &str, columns: usize) -> (Vec<Vec<String>>, Vec<(String, Fault)>) {
    let s = structure(columns);
    let (rows, broken) = all(Structure::walk_slowly::<true>, &s, text.as_bytes(), usize::MAX / 2);
    (rows, broken.into_iter().map(|b| (text[b.start..b.end].to_owned(), b.fault)).collect())
}

#[test]
fn a_stray_quote_in_an_unquoted_field_is_text() {
    assert_eq!(
        fields("5\" pipe,a\n x\"y\",b\n", 2),
        (vec![vec!["5\" pipe".into(), "a".into()], vec![" x\"y\"".into(), "b".into()]], vec![])
    );
}

#[test]
fn text_after_a_closing_quote_costs_one_line() {
    assert_eq!(fields("\"a\"x,\"1\n2,3\n", 2), (vec![vec!["2".into(), "3".into()]], vec![("\"a\"x,\"1\n".into(), Fault::AfterQuote)]));
}

#[test]
fn a_quote_never_closed_costs_one_line() {
    assert_eq!(
        fields("\"a,1\n2,3\n4,5", 2),
        (vec![vec!["2".into(), "3".into()], vec!["4".into(), "5".into()]], vec![("\"a,1\n".into(), Fault::Unclosed)])
    );
}

#[test]
fn blank_lines_are_skipped_but_are_nulls_of_a_single_column() {
    assert_eq!(fields("\na,b\n\r\n", 2), (vec![vec!["a".into(), "b".into()]], vec![]));
    assert_eq!(fields("\na\n", 1), (vec![vec!["".into()], vec!["a".into()]], vec![]));
}

#[test]
fn a_lone_cr_is_text_and_a_last_line_needs_no_end() {
    assert_eq!(fields("a\rb,c\r\nd,", 2), (vec![vec!["a\rb".into(), "c\r".into()], vec!["d".into(), "".into()]], vec![]));
}

#[test]
fn a_wrong_number_of_fields_breaks_the_record_alone() {
    let (rows, broken) = fields("a,b\nc\nd,e,f\n\"g\n\"\nh,i\n", 2);
    assert_eq!(rows, [["a", "b"], ["h", "i"]]);
    assert_eq!(broken, [("c\n".into(), Fault::Fields(1)), ("d,e,f\n".into(), Fault::Fields(3)), ("\"g\n\"\n".into(), Fault::Fields(1))]);
}
