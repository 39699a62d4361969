//! A graph on a terminal: a line for each step, and lanes beside them that lead from a step to those that read it.

use super::{Graph, Role};
use crate::render::{Style, text};

/// What a lane has in a row: a line from above, to below, to the left and to the right.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    up: bool,
    down: bool,
    left: bool,
    right: bool,
}

impl Cell {
    fn draw(self) -> char {
        match (self.up, self.down, self.left, self.right) {
            (false, false, false, false) => ' ',
            (true, true, false, false) | (true, false, false, false) | (false, true, false, false) => '│',
            (false, false, _, _) => '─',
            (true, false, false, true) => '╰',
            (true, false, true, false) => '╯',
            (true, false, true, true) => '┴',
            (false, true, false, true) => '╭',
            (false, true, true, false) => '╮',
            (false, true, true, true) => '┬',
            (true, true, false, true) => '├',
            (true, true, true, false) => '┤',
            (true, true, true, true) => '┼',
        }
    }
}

/// Draws a graph. A step's lane goes down until its last reader; where a line crosses a lane that it does not belong to, the lane is whole
/// and the line goes on behind it.
pub fn lanes(graph: &Graph, style: Style) -> String {
    let mut readers = vec![0_usize; graph.nodes.len()];
    graph.edges().for_each(|(from, _)| readers[from] += 1);
    // The step that each lane comes from.
    let mut lanes: Vec<Option<usize>> = Vec::new();
    let mut rows: Vec<(String, Option<usize>)> = Vec::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        let from: Vec<usize> = (0..lanes.len()).filter(|lane| lanes[*lane].is_some_and(|step| node.reads.contains(&step))).collect();
        let before: Vec<bool> = lanes.iter().map(Option::is_some).collect();
        for lane in &from {
            if let Some(step) = lanes[*lane] {
                readers[step] -= 1;
                if readers[step] == 0 {
                    lanes[*lane] = None;
                }
            }
        }
        // Straight below the first that ends here; else where there is room, behind those it reads.
        let first = from.first().copied().unwrap_or(0);
        let ended = from.iter().copied().find(|lane| lanes[*lane].is_none());
        let own = ended.or_else(|| (first..lanes.len()).find(|lane| lanes[*lane].is_none())).unwrap_or(lanes.len());
        if own == lanes.len() {
            lanes.push(None);
        }
        if !from.is_empty() && from != [own] {
            rows.push((join(&lanes, &before, &from, own), None));
        }
        lanes[own] = Some(at);
        rows.push((step(&lanes, own, node.role), Some(at)));
        if readers[at] == 0 {
            lanes[own] = None;
        }
        while lanes.last() == Some(&None) {
            lanes.pop();
        }
    }
    let width = rows.iter().map(|(row, _)| text::width(row)).max().unwrap_or(0);
    let names = graph.nodes.iter().map(|node| text::width(&text::visible(&node.step))).max().unwrap_or(0);
    let mut out = String::new();
    for (row, at) in rows {
        let Some(node) = at.map(|at| &graph.nodes[at]) else {
            out.push_str(&format!("{}\n", style.dim(&row)));
            continue;
        };
        let name = text::visible(&node.step);
        let space = |columns: usize| " ".repeat(columns);
        let (gap, behind) = (space(width - text::width(&row)), space(names - text::width(&name)));
        out.push_str(&format!(
            "{row}{gap}  {}{behind}  {} {}\n",
            style.bold(&name),
            node.role.word(),
            style.dim(&format!("({})", node.kind))
        ));
    }
    out
}

/// The row before a step, which leads the lanes it reads to its own.
fn join(lanes: &[Option<usize>], before: &[bool], from: &[usize], own: usize) -> String {
    let (left, right) = (from[0].min(own), from[from.len() - 1].max(own));
    let mut row = String::new();
    for (lane, taken) in lanes.iter().enumerate() {
        let is_part = from.contains(&lane) || lane == own;
        let cell = Cell {
            up: before.get(lane).copied().unwrap_or(false),
            down: taken.is_some() || lane == own,
            left: is_part && lane > left,
            right: is_part && lane < right,
        };
        let is_between = lane > left && lane < right;
        let cell = if is_between && !is_part && !cell.up { Cell { left: true, right: true, ..cell } } else { cell };
        row.push(cell.draw());
        row.push(if lane >= left && lane < right { '─' } else { ' ' });
    }
    row.trim_end().to_owned()
}

/// The row of a step: its sign, and the lanes that pass.
fn step(lanes: &[Option<usize>], own: usize, role: Role) -> String {
    let mut row = String::new();
    for (lane, step) in lanes.iter().enumerate() {
        row.push(match (lane == own, step.is_some(), role) {
            (true, _, Role::Source) => '○',
            (true, _, Role::Transform) => '●',
            (true, _, Role::Sink) => '■',
            (false, true, _) => '│',
            (false, false, _) => ' ',
        });
        row.push(' ');
    }
    row.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::graph::graph;

    fn drawn(text: &str) -> String {
        lanes(&graph(text), Style::PLAIN)
    }

    #[test]
    fn a_chain_is_one_lane() {
        assert_eq!(drawn("s\nt1 < s\nout < t1"), "○  s    source (kind)\n●  t1   transform (kind)\n■  out  sink (kind)\n");
    }

    #[test]
    fn lanes_meet_where_steps_are_joined_and_part_where_one_is_read_twice() {
        let expected = "\
○      s1    source (kind)
│ ○    s2    source (kind)
│ │ ○  s3    source (kind)
├─│─╯
● │    t1    transform (kind)
├─┤
│ ●    t2    transform (kind)
│ ├─╮
│ │ ■  out1  sink (kind)
│ ■    out2  sink (kind)
●      t3    transform (kind)
";
        assert_eq!(drawn("s1\ns2\ns3\nt1 < s1 s3\nt2 < t1 s2\nout1 < t2\nout2 < t2\nt3 < t1"), expected);
    }
}
