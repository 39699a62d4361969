//! `weir new NAME --from WHAT`: a pipeline that works, from data that is there to a table of the lake, with a contract made from the rows.

use std::{
    fs,
    path::{Component, Path},
};

use serde_json::json;
use weir_connectors::SOURCES;
use weir_engine::{
    Failure, Workspace,
    check::{Checker, Depth},
    survey::{self, Origin, Survey},
};
use weir_pipelines::{Diagnostic, Diagnostics, Settings, Severity};
use weir_schemas::infer::Options;

use super::{
    super::{
        context::{Answer, Context, Set, Stop, parse_partial, to_stderr},
        data::{Data, toml, unplaced},
        init::{refuse_taken, write_new},
    },
    New, schema_line,
};
use crate::{
    project::{self, Found},
    render::{error, number::counted},
};

/// Makes the pipeline and its contract, and checks them.
pub(super) async fn made(new: &New, what: &str, context: &Context) -> Answer {
    let (root, name) = (context.root(None)?, &new.name);
    let paths = [format!("pipelines/{name}/{}", project::PIPELINE_FILE), format!("pipelines/{name}/{name}.schema.json")];
    refuse_taken(&root, &paths, &context.folder)?;
    let data = Data { what, step: None, limit: new.limit, set: &new.set };
    let (workspace, origin, _) = data.origin(context)?;
    let Origin::Source { settings, .. } = &origin else {
        let message = format!("a pipeline is not made from \"{what}\", which Weir itself keeps or makes");
        let help = "name a file, pattern, folder or URL, or CONNECTION.TABLE";
        return Err(Diagnostic::error("unknown-data", message).help(help).into());
    };
    let options = Options { values: !new.no_examples, strict: false, narrow: true };
    let surveyed = survey::survey(&workspace, &origin, name, Survey { limit: new.limit, options }).await.map_err(unplaced)?;
    let rows = counted(surveyed.rows, "row", "rows");
    let folder = root.join("pipelines").join(name);
    let draft = Draft {
        name,
        schema: schema_line(&root),
        kind: &settings.kind.value,
        settings: own_settings(new, what, settings, &root, context),
        rows: &rows,
    };
    let [pipeline, contract] = paths;
    let contract_text = format!("{:#}\n", surveyed.contract);
    write_new(&root, &[(pipeline.clone(), draft.text("")), (contract.clone(), contract_text)], &context.folder)?;
    let path = folder.join(project::PIPELINE_FILE);
    let mut found = checked(&workspace, &path, context).await?;
    // The lake does not have every type: what comes nearest is better than no table, and the file says so.
    if let Some(lossy) = found.iter().find(|one| one.code == "lossy-type").and_then(accepted) {
        let written = fs::write(&path, draft.text(&lossy));
        written.map_err(|error| Failure::error("output-failed", format!("cannot write \"{}\": {error}", path.display())))?;
        found = checked(&workspace, &path, context).await?;
    }
    let created: Vec<_> = [pipeline, contract].iter().map(|path| root.join(path)).collect();
    let is_right = !found.iter().any(|one| one.severity == Severity::Error);
    if context.global.json {
        let created: Vec<String> = created.iter().map(|path| path.display().to_string()).collect();
        let diagnostics: Vec<_> = found.iter().map(crate::render::diagnostic::to_json).collect();
        let (rows, rejected, notes) = (surveyed.rows, surveyed.rejected, &surveyed.notes);
        context
            .answer_json(&json!({ "created": created, "rows": rows, "rejected": rejected, "notes": notes, "diagnostics": diagnostics }))?;
    } else {
        for path in &created {
            context.answer(&format!("{}\n", project::shown(path, &context.folder)))?;
        }
        let text = error::render_diagnostics(&found, context.talk);
        if !is_right {
            to_stderr(text.trim_end_matches('\n'));
        } else if !text.is_empty() {
            context.say(text.trim_end_matches('\n'));
        }
        let next = if is_right { format!("weir run {name}") } else { format!("mend what is wrong, then: weir check {name}") };
        context.say(&format!("the contract is made from {rows}; next: {next}"));
    }
    if surveyed.rejected > 0 {
        context.say(&format!("{} could not be read, and the contract does not know of them", counted(surveyed.rejected, "row", "rows")));
    }
    surveyed.notes.iter().for_each(|note| context.say(note));
    Ok(if is_right { error::DONE } else { error::WRONG })
}

/// A pipeline that is to be written.
struct Draft<'a> {
    name: &'a str,
    schema: &'a str,
    kind: &'a str,
    /// Lines of the source's own table.
    settings: String,
    rows: &'a str,
}

impl Draft<'_> {
    /// The file, with a setting of its sink.
    fn text(&self, lossy: &str) -> String {
        let Draft { name, schema, kind, settings, rows } = self;
        let step = step_of(name);
        let lossy = if lossy.is_empty() {
            String::new()
        } else {
            format!("# Types that the lake does not have are kept as the nearest one.\n{lossy}\n")
        };
        format!(
            "{schema}weir = 1\nname = \"{name}\"\ndescription = \"What {name} is for\"\n\n\
             # Made from {rows}: say in the contract what else a row must be.\n\
             [source.{step}]\ncontract = \"{name}.schema.json\"\n[source.{step}.{kind}]\n{settings}\n\
             # Ask it with: weir sql -c \"select * from lake.main.{step} limit 10\"\n\
             [sink.{step}_table]\nfrom = \"{step}\"\nmode = \"replace\"\n{lossy}[sink.{step}_table.lake]\ntable = \"{step}\"\n"
        )
    }
}

/// A name for the source and for the table: one that SQL takes without quotes.
fn step_of(name: &str) -> String {
    let plain = name.to_lowercase().replace('-', "_");
    let plain = plain.trim_matches('_');
    if plain.starts_with(|c: char| c.is_ascii_lowercase()) {
        plain.to_owned()
    } else {
        format!("rows_{plain}").trim_end_matches('_').to_owned()
    }
}

/// The lines of the source's own table. A path is told from the pipeline's folder.
fn own_settings(new: &New, what: &str, settings: &Settings, root: &Path, context: &Context) -> String {
    let mut lines = if settings.kind.value == SOURCES[0].kind {
        let is_url = what.contains("://");
        let path = if is_url { what.to_owned() } else { from_pipeline(&project::absolute(Path::new(what), &context.folder), root) };
        format!("path = {}\n", toml(&path))
    } else {
        settings.file.text.clone()
    };
    for (key, value) in &new.set.set {
        let bare = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let parts: Vec<String> = key.split('.').map(|part| if bare(part) { part.to_owned() } else { toml(part) }).collect();
        lines.push_str(&format!("{} = {}\n", parts.join("."), value.trim()));
    }
    lines
}

/// A path as a pipeline two folders below the root names it; one outside the project stays whole.
fn from_pipeline(path: &Path, root: &Path) -> String {
    match path.strip_prefix(root) {
        Ok(rest) if rest.components().all(|part| matches!(part, Component::Normal(_))) => format!("../../{}", rest.display()),
        _ => path.display().to_string(),
    }
}

/// What a check of the new file says.
async fn checked(workspace: &Workspace, path: &Path, context: &Context) -> Result<Diagnostics, Stop> {
    let found = Found { path: path.to_path_buf(), row: None };
    let partial = parse_partial(&workspace.project, &found, &context.folder, &Set::default())?;
    let checker = Checker::new(workspace.clone(), false).await?;
    Ok(checker.check(partial, Depth::Files).await?.diagnostics)
}

/// The setting that accepts what a sink would lose, as its help says it.
fn accepted(lossy: &Diagnostic) -> Option<String> {
    let help = lossy.help.iter().find_map(|help| help.split_once("allow_lossy = ["))?;
    let columns = help.1.rsplit_once(']')?.0;
    Some(format!("allow_lossy = [{columns}]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_one_that_sql_takes_without_quotes() {
        for (name, step) in
            [("visits", "visits"), ("Site-Visits", "site_visits"), ("2026-visits", "rows_2026_visits"), ("_", "rows"), ("-a-", "a")]
        {
            assert_eq!(step_of(name), step);
        }
    }

    #[test]
    fn a_path_is_told_from_the_pipelines_folder() {
        let root = Path::new("/project");
        assert_eq!(from_pipeline(Path::new("/project/data/a b.csv"), root), "../../data/a b.csv");
        assert_eq!(from_pipeline(Path::new("/project2/a.csv"), root), "/project2/a.csv");
    }
}
