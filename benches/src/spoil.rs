//! Which rows of a text are made to break their contract, and how: one rule a row, every rule in its turn, the same rows every time.

/// What is put into which column; a cell may depend on the row's others.
type Breaks = &'static [&'static [(&'static str, &'static str)]];

/// Ways to break `benches/contracts/lineitem.schema.json`.
pub const LINEITEM: Breaks = &[
    &[("l_orderkey", "-1")],
    &[("l_linenumber", "8")],
    &[("l_quantity", "51")],
    &[("l_extendedprice", "0.00")],
    &[("l_discount", "0.11")],
    &[("l_tax", "-0.01")],
    &[("l_returnflag", "X")],
    &[("l_shipmode", "BOAT")],
    &[("l_shipinstruct", "deliver in person")],
    &[("l_shipdate", "")],
    &[("l_comment", "a comment that is quite a bit longer than such a comment may be")],
    &[("l_linestatus", "O"), ("l_returnflag", "A")],
];

/// Ways to break `schemas/flight.schema.json`.
pub const FLIGHTS: Breaks = &[
    &[("year", "1913")],
    &[("month", "13")],
    &[("sched_dep_time", "2460")],
    &[("carrier", "ua")],
    &[("carrier", "NA")],
    &[("flight", "0")],
    &[("tailnum", "14228")],
    &[("origin", "BOS")],
    &[("dest", "bos")],
    &[("distance", "17")],
    &[("hour", "24")],
    &[("dep_time", "517"), ("tailnum", "NA")],
];

/// Breaks a share of the rows that pass.
#[derive(Debug)]
pub struct Spoiler {
    breaks: Vec<Vec<(usize, &'static str)>>,
    columns: usize,
    /// Of 2³².
    share: u64,
    row: u64,
    broken: usize,
}

impl Spoiler {
    /// For rows under this header. `share` is from 0 to 1.
    ///
    /// # Panics
    /// When the header lacks a column that is to be broken.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is from 0 to 1")]
    pub fn new(header: &str, breaks: Breaks, share: f64) -> Self {
        let at = |name: &str| header.split(',').position(|column| column == name).expect("the header has the columns that are broken");
        let breaks = breaks.iter().map(|cells| cells.iter().map(|(name, text)| (at(name), *text)).collect()).collect();
        Self { breaks, columns: header.split(',').count(), share: (share * 4_294_967_296.0) as u64, row: 0, broken: 0 }
    }

    /// Appends a line, broken when it is its turn. Only the last column may hold commas and quotes.
    pub fn line(&mut self, line: &str, out: &mut String) {
        self.row += 1;
        // Knuth's multiplicative hash spreads the broken rows evenly.
        if self.row.wrapping_mul(2_654_435_761) & 0xffff_ffff >= self.share {
            out.push_str(line);
            out.push('\n');
            return;
        }
        let cells = &self.breaks[self.broken % self.breaks.len()];
        self.broken += 1;
        for (column, text) in line.splitn(self.columns, ',').enumerate() {
            if column > 0 {
                out.push(',');
            }
            out.push_str(cells.iter().find(|(at, _)| *at == column).map_or(text, |(_, broken)| broken));
        }
        out.push('\n');
    }

    /// Lines broken so far.
    pub fn broken(&self) -> usize {
        self.broken
    }
}
