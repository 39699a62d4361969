//! A pipeline as a drawing: its steps and what reads what, as Mermaid and DOT. Lanes on a terminal: `lanes.rs`; SVG: `svg.rs`.

mod lanes;
mod svg;

use std::collections::HashMap;

use serde::Serialize;
use weir_engine::transforms;
use weir_pipelines::Pipeline;

pub use lanes::lanes;
pub use svg::svg;

use super::text;

/// What a step is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Where rows come from.
    Source,
    /// What changes them.
    Transform,
    /// Where they go.
    Sink,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Transform => "transform",
            Role::Sink => "sink",
        }
    }
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name, unique in the pipeline.
    pub step: String,
    /// What it is for.
    pub role: Role,
    /// What it is made of.
    pub kind: String,
    /// The steps it reads, by their place in the graph, each once: all stand before it.
    #[serde(skip)]
    pub reads: Vec<usize>,
}

/// The steps of a pipeline, each after those it reads: a source right before its first reader, a sink right behind the step it takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    /// The steps.
    pub nodes: Vec<Node>,
}

impl Graph {
    /// Reads a pipeline's steps.
    pub fn of(pipeline: &Pipeline) -> Self {
        let mut maker = Maker { pipeline, graph: Graph::default(), places: HashMap::new() };
        for transform in &pipeline.transforms {
            for input in &transform.inputs {
                maker.source(&input.value);
            }
            let reads = transform.inputs.iter().map(|input| input.value.as_str());
            maker.push(&transform.name.value, Role::Transform, transforms::kind(&transform.operator), reads);
        }
        for source in &pipeline.sources {
            maker.source(&source.name.value);
        }
        maker.graph
    }

    /// What reads what: the places of a step and of one that reads it.
    pub fn edges(&self) -> impl Iterator<Item = (usize, usize)> {
        self.nodes.iter().enumerate().flat_map(|(at, node)| node.reads.iter().map(move |from| (*from, at)))
    }
}

struct Maker<'a> {
    pipeline: &'a Pipeline,
    graph: Graph,
    places: HashMap<&'a str, usize>,
}

impl<'a> Maker<'a> {
    fn source(&mut self, name: &str) {
        if let Some(source) = self.pipeline.sources.iter().find(|source| source.name.value == name)
            && !self.places.contains_key(name)
        {
            self.push(&source.name.value, Role::Source, &source.settings.kind.value, []);
        }
    }

    fn push<'b>(&mut self, name: &'a str, role: Role, kind: &str, reads: impl IntoIterator<Item = &'b str>) {
        let mut places: Vec<usize> = reads.into_iter().filter_map(|name| self.places.get(name).copied()).collect();
        places.sort_unstable();
        places.dedup();
        let place = self.graph.nodes.len();
        self.graph.nodes.push(Node { step: name.to_owned(), role, kind: kind.to_owned(), reads: places });
        if role == Role::Sink {
            return;
        }
        self.places.insert(name, place);
        let pipeline = self.pipeline;
        for sink in pipeline.sinks.iter().filter(|sink| sink.from.value == name) {
            self.push(&sink.name.value, Role::Sink, &sink.settings.kind.value, [name]);
        }
    }
}

/// Draws a graph as Mermaid reads it, which GitHub and GitLab show in Markdown.
pub fn mermaid(graph: &Graph) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for (at, node) in graph.nodes.iter().enumerate() {
        let (open, close) = match node.role {
            Role::Source => ("([", "])"),
            Role::Transform => ("[", "]"),
            Role::Sink => ("[(", ")]"),
        };
        out.push_str(&format!("  n{at}{open}\"{}<br/>{}\"{close}\n", entities(&node.step), entities(&node.kind)));
    }
    for (from, to) in graph.edges() {
        out.push_str(&format!("  n{from} --> n{to}\n"));
    }
    out
}

/// Draws a graph as Graphviz reads it.
pub fn dot(name: &str, graph: &Graph) -> String {
    let quoted = |text: &str| text::visible(text).replace('\\', "\\\\").replace('"', "\\\"");
    let mut out = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [fontname=\"sans-serif\", fontsize=11];\n", quoted(name));
    for (at, node) in graph.nodes.iter().enumerate() {
        let shape = match node.role {
            Role::Source => "oval",
            Role::Transform => "box",
            Role::Sink => "cylinder",
        };
        out.push_str(&format!("  n{at} [label=\"{}\\n{}\", shape={shape}];\n", quoted(&node.step), quoted(&node.kind)));
    }
    for (from, to) in graph.edges() {
        out.push_str(&format!("  n{from} -> n{to};\n"));
    }
    out.push_str("}\n");
    out
}

/// A text between the quotes of Mermaid, which has entities of its own.
fn entities(text: &str) -> String {
    let mut out = String::new();
    for c in text::visible(text).chars() {
        match c {
            '#' => out.push_str("#35;"),
            '&' => out.push_str("#amp;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '"' => out.push_str("#quot;"),
            other => out.push(other),
        }
    }
    out
}

/// A text between the tags of HTML and XML.
fn html(text: &str) -> String {
    text::visible(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Graphs for tests: `name < inputs`, one a line; the first letter of a name says its role.
#[cfg(test)]
fn graph(text: &str) -> Graph {
    let mut graph = Graph::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, inputs) = line.split_once('<').unwrap_or((line, ""));
        let role = match name.as_bytes()[0] {
            b's' => Role::Source,
            b't' => Role::Transform,
            _ => Role::Sink,
        };
        let reads =
            inputs.split_whitespace().map(|name| graph.nodes.iter().position(|node| node.step == name).expect("is there")).collect();
        graph.nodes.push(Node { step: name.trim().to_owned(), role, kind: "kind".to_owned(), reads });
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_in_every_language() {
        let mut graph = graph("s");
        graph.nodes[0].step = "a \"b\" <i> \\ & \u{1b}".to_owned();
        assert_eq!(mermaid(&graph), "flowchart LR\n  n0([\"a #quot;b#quot; #lt;i#gt; \\ #amp; \\u{1b}<br/>kind\"])\n");
        assert!(dot("p", &graph).contains("  n0 [label=\"a \\\"b\\\" <i> \\\\ & \\\\u{1b}\\nkind\", shape=oval];\n"));
        assert!(svg("p", &graph).contains(">a &quot;b&quot; &lt;i&gt; \\ &amp; \\u{1b}</text>"));
    }
}
