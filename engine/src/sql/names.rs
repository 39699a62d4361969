//! Which tables and functions does a query know? What DataFusion's planner asks of a session, answered from tables that were fetched before,
//! so that any part of a query can be planned on its own, again and again.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    catalog::{TableFunctionArgs, TableProvider},
    common::{TableReference, config::ConfigOptions, not_impl_err, plan_datafusion_err},
    datasource::{cte_worktable::CteWorkTable, provider_as_source},
    error::Result as DfResult,
    execution::SessionState,
    logical_expr::{
        AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF,
        planner::{ContextProvider, ExprPlanner, RelationPlanner},
    },
    prelude::SessionContext,
    sql::parser::Statement,
};

/// A session's functions, and the tables that one query names.
pub struct Names<'a> {
    pub state: &'a SessionState,
    tables: HashMap<String, Arc<dyn TableSource>>,
}

/// The tables that a statement names, where the session has them.
pub async fn tables(session: &SessionContext, statement: &Statement) -> Vec<(TableReference, Arc<dyn TableProvider>)> {
    let references = session.state().resolve_table_references(statement).unwrap_or_default();
    let mut found = Vec::new();
    for reference in references {
        if let Ok(table) = session.table_provider(reference.clone()).await {
            found.push((reference, table));
        }
    }
    found
}

impl<'a> Names<'a> {
    pub fn new(state: &'a SessionState, tables: Vec<(TableReference, Arc<dyn TableProvider>)>) -> Self {
        let mut names = Self { state, tables: HashMap::new() };
        for (reference, table) in tables {
            let full = names.full(reference);
            names.tables.insert(full, provider_as_source(table));
        }
        names
    }

    fn full(&self, reference: TableReference) -> String {
        let catalog = &self.state.config_options().catalog;
        reference.resolve(&catalog.default_catalog, &catalog.default_schema).to_string()
    }

    /// Whether there is such a function, of any sort.
    pub fn is_function(&self, name: &str) -> bool {
        self.state.scalar_functions().contains_key(name)
            || self.state.aggregate_functions().contains_key(name)
            || self.state.window_functions().contains_key(name)
            || self.state.higher_order_functions().contains_key(name)
            || self.state.table_functions().contains_key(name)
    }

    /// The names of all functions.
    pub fn functions(&self) -> Vec<String> {
        let mut names: Vec<String> = self.state.scalar_functions().keys().cloned().collect();
        names.extend(self.state.aggregate_functions().keys().cloned());
        names.extend(self.state.window_functions().keys().cloned());
        names.extend(self.state.higher_order_functions().keys().cloned());
        names.sort();
        names.dedup();
        names
    }

    /// How a function is written: `substr(str, start_pos[, length])`.
    pub fn syntax(&self, name: &str) -> Option<String> {
        let scalar = self.state.scalar_functions().get(name).and_then(|found| found.documentation());
        let aggregate = || self.state.aggregate_functions().get(name).and_then(|found| found.documentation());
        let window = || self.state.window_functions().get(name).and_then(|found| found.documentation());
        let found = scalar.or_else(aggregate).or_else(window)?;
        let mut forms = vec![found.syntax_example.clone()];
        forms.extend(found.alternative_syntax.iter().flatten().take(2).cloned());
        let forms: Vec<String> = forms.iter().map(|form| form.trim().replace('\n', " ")).filter(|form| !form.is_empty()).collect();
        (!forms.is_empty()).then(|| forms.join(" or "))
    }
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        let full = self.full(name);
        self.tables.get(&full).cloned().ok_or_else(|| plan_datafusion_err!("table '{full}' not found"))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> DfResult<Arc<dyn TableSource>> {
        match self.state.table_functions().get(name) {
            Some(function) => function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state)).map(provider_as_source),
            None => not_impl_err!("table function '{name}'"),
        }
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DfResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
