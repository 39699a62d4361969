//! A graph as SVG: layers from left to right, each step behind all that it reads, in the order in which the fewest lines cross.

use super::{Graph, Role, html};
use crate::render::text;

/// Sizes in pixels.
const HEIGHT: f64 = 40.0;
const GAP: f64 = 16.0;
const BETWEEN: f64 = 56.0;
const MARGIN: f64 = 16.0;
/// A character of 12 pixels, about.
const CHARACTER: f64 = 7.4;
/// Sweeps over the layers, to the right and back.
const SWEEPS: usize = 8;
/// Places of lines that pass layers; where there were more, lines go straight across.
const PASSES_MAX: usize = 100_000;

/// What has a place in a layer: a step, or a line that passes.
#[derive(Debug, Clone)]
struct Place {
    /// The step; none for a line.
    node: Option<usize>,
    /// Places of the layer before that lead here.
    before: Vec<usize>,
}

/// Draws a graph.
pub fn svg(name: &str, graph: &Graph) -> String {
    let (layers, paths) = layers(graph);
    let orders = order(&layers);
    let width_of = |at: usize| {
        let node = &graph.nodes[at];
        let longest = text::width(&text::visible(&node.step)).max(text::width(&node.kind));
        (u32::try_from(longest).map_or(f64::MAX, f64::from) * CHARACTER + 24.0).clamp(72.0, 4000.0)
    };
    let widths: Vec<f64> =
        layers.iter().map(|layer| layer.iter().filter_map(|place| place.node).map(width_of).fold(72.0, f64::max)).collect();
    let tallest = layers.iter().map(Vec::len).max().unwrap_or(0);
    let count = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
    let height = 2.0 * MARGIN + count(tallest) * (HEIGHT + GAP) - if tallest > 0 { GAP } else { 0.0 };
    let left: Vec<f64> = (0..widths.len()).map(|at| MARGIN + widths[..at].iter().map(|width| width + BETWEEN).sum::<f64>()).collect();
    let width = left.last().map_or(2.0 * MARGIN, |last| last + widths[widths.len() - 1] + MARGIN);
    // The middle of a place.
    let middle = |layer: usize, place: usize| {
        let used = count(layers[layer].len()) * (HEIGHT + GAP) - GAP;
        (height - used) / 2.0 + count(orders[layer][place]) * (HEIGHT + GAP) + HEIGHT / 2.0
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" text-anchor=\"middle\">\n<title>{}</title>\n",
        html(name)
    );
    out.push_str("<g fill=\"none\" stroke=\"#888\" stroke-width=\"1.5\">\n");
    for path in &paths {
        let mut line = String::new();
        for pair in path.windows(2) {
            let [(from, a), (to, b)] = [pair[0], pair[1]];
            let end = |layer: usize, place: usize| layers[layer][place].node.map_or(widths[layer], width_of);
            let (x1, y1) = (left[from] + if line.is_empty() { end(from, a) } else { widths[from] }, middle(from, a));
            let (x2, y2) = (left[to], middle(to, b));
            if line.is_empty() {
                line.push_str(&format!("M{x1:.0} {y1:.0}"));
            } else {
                line.push_str(&format!(" L{x1:.0} {y1:.0}"));
            }
            let bend = (x1 + x2) / 2.0;
            line.push_str(&format!(" C{bend:.0} {y1:.0} {bend:.0} {y2:.0} {x2:.0} {y2:.0}"));
        }
        out.push_str(&format!("<path d=\"{line}\"/>\n"));
    }
    out.push_str("</g>\n");
    for (layer, places) in layers.iter().enumerate() {
        for (place, at) in places.iter().enumerate().filter_map(|(place, found)| Some((place, found.node?))) {
            let node = &graph.nodes[at];
            let (x, y, width) = (left[layer], middle(layer, place), width_of(at));
            let (fill, round) = match node.role {
                Role::Source => ("#e3f1e3", 20),
                Role::Transform => ("#eeeeee", 4),
                Role::Sink => ("#dfe9f7", 4),
            };
            let top = y - HEIGHT / 2.0;
            let center = x + width / 2.0;
            out.push_str(&format!(
                "<rect x=\"{x:.0}\" y=\"{top:.0}\" width=\"{width:.0}\" height=\"{HEIGHT:.0}\" rx=\"{round}\" fill=\"{fill}\" stroke=\"#666\"/>\n\
                 <text x=\"{center:.0}\" y=\"{:.0}\" font-weight=\"bold\">{}</text>\n\
                 <text x=\"{center:.0}\" y=\"{:.0}\" fill=\"#555\">{} {}</text>\n",
                y - 3.0,
                html(&node.step),
                y + 13.0,
                html(&node.kind),
                node.role.word(),
            ));
        }
    }
    out.push_str("</svg>\n");
    out
}

/// The layers of a graph, and for each line the layers and places that it goes through.
fn layers(graph: &Graph) -> (Vec<Vec<Place>>, Vec<Vec<(usize, usize)>>) {
    let mut rank = vec![0_usize; graph.nodes.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        rank[at] = node.reads.iter().map(|from| rank[*from] + 1).max().unwrap_or(0);
    }
    // A source stands right before its first reader.
    for at in 0..graph.nodes.len() {
        if graph.nodes[at].reads.is_empty()
            && let Some(first) = graph.edges().filter(|(from, _)| *from == at).map(|(_, to)| rank[to]).min()
        {
            rank[at] = first - 1;
        }
    }
    let mut layers: Vec<Vec<Place>> = vec![Vec::new(); rank.iter().max().map_or(0, |last| last + 1)];
    let mut places = vec![0; graph.nodes.len()];
    for (at, rank) in rank.iter().enumerate() {
        places[at] = layers[*rank].len();
        layers[*rank].push(Place { node: Some(at), before: Vec::new() });
    }
    let mut paths = Vec::new();
    let passes: usize = graph.edges().map(|(from, to)| rank[to] - rank[from] - 1).sum();
    for (from, to) in graph.edges() {
        let mut path = vec![(rank[from], places[from])];
        if passes > PASSES_MAX {
            path.push((rank[to], places[to]));
            paths.push(path);
            continue;
        }
        for (layer, places) in layers.iter_mut().enumerate().take(rank[to]).skip(rank[from] + 1) {
            let (_, behind) = path[path.len() - 1];
            path.push((layer, places.len()));
            places.push(Place { node: None, before: vec![behind] });
        }
        let (_, behind) = path[path.len() - 1];
        layers[rank[to]][places[to]].before.push(behind);
        path.push((rank[to], places[to]));
        paths.push(path);
    }
    (layers, paths)
}

/// In which order the places of each layer stand, from the top: each near the middle of those it is joined with.
fn order(layers: &[Vec<Place>]) -> Vec<Vec<usize>> {
    let mut orders: Vec<Vec<usize>> = layers.iter().map(|layer| (0..layer.len()).collect()).collect();
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        for step in 1..layers.len() {
            let layer = if forth { step } else { layers.len() - 1 - step };
            let near: Vec<Vec<usize>> = if forth {
                layers[layer].iter().map(|place| place.before.iter().map(|before| orders[layer - 1][*before]).collect()).collect()
            } else {
                let mut near = vec![Vec::new(); layers[layer].len()];
                for (at, place) in layers[layer + 1].iter().enumerate() {
                    place.before.iter().for_each(|before| near[*before].push(orders[layer + 1][at]));
                }
                near
            };
            // Twice the middle, in thousandths, so that places are compared as whole numbers.
            let weigh = |at: usize| match near[at].as_slice() {
                [] => orders[layer][at] * 1000,
                near => near.iter().sum::<usize>() * 1000 / near.len(),
            };
            let mut sorted: Vec<usize> = (0..layers[layer].len()).collect();
            sorted.sort_by_key(|at| (weigh(*at), orders[layer][*at]));
            let mut order = vec![0; sorted.len()];
            sorted.into_iter().enumerate().for_each(|(place, at)| order[at] = place);
            orders[layer] = order;
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::graph::graph;

    #[test]
    fn a_source_stands_before_its_first_reader_and_lines_pass_between_steps() {
        let graph = graph("s1\nt1 < s1\ns2\nt2 < t1 s2\nout < s1");
        let (layers, paths) = layers(&graph);
        let steps: Vec<Vec<Option<&str>>> =
            layers.iter().map(|layer| layer.iter().map(|place| place.node.map(|at| graph.nodes[at].step.as_str())).collect()).collect();
        assert_eq!(steps, [vec![Some("s1")], vec![Some("t1"), Some("s2"), Some("out")], vec![Some("t2")]]);
        assert_eq!(paths.len(), 4);
    }

    #[test]
    fn lines_cross_as_little_as_can_be() {
        let graph = graph("s1\ns2\ns3\nt1 < s3\nt2 < s2\nt3 < s1");
        let (layers, _) = layers(&graph);
        let orders = order(&layers);
        for (at, place) in layers[1].iter().enumerate() {
            assert_eq!(orders[0][place.before[0]], orders[1][at], "each stands beside what it reads");
        }
    }

    #[test]
    fn an_empty_graph_and_a_large_one_are_drawn() {
        assert!(svg("p", &graph("")).starts_with("<svg "));
        let mut text = "s\nt0 < s\n".to_owned();
        for at in 1..1000 {
            text.push_str(&format!("t{at} < t{} s\n", at - 1));
        }
        assert_eq!(svg("p", &graph(&text)).matches("<path").count(), 1999);
    }
}
