use std::collections::BTreeSet;

/// The text of `/metrics`.
pub struct Scrape(pub String);

/// One metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: String,
    /// Label names, without `le`.
    pub labels: BTreeSet<String>,
}

impl Scrape {
    pub async fn of(url: &str) -> Self {
        let response = reqwest::get(format!("{url}/metrics")).await.expect("a response");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        Self(response.text().await.expect("text"))
    }

    /// The value of a series, as text.
    pub fn value(&self, series: &str) -> Option<String> {
        self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(str::to_owned)
    }

    pub fn number(&self, series: &str) -> Option<f64> {
        self.value(series).map(|value| value.parse().unwrap_or_else(|e| panic!("{series} {value}: {e}")))
    }

    /// The sum of all series of `name` with this label, or of all of them if it is empty.
    pub fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let of = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?;
            let is_wanted = (labels.is_empty() || labels.starts_with('{')) && labels.contains(label);
            is_wanted.then(|| value.parse::<f64>().unwrap_or_else(|e| panic!("{line}: {e}")))
        };
        let values: Vec<f64> = self.0.lines().filter_map(of).collect();
        (!values.is_empty()).then(|| values.into_iter().sum())
    }

    pub fn families(&self) -> Vec<Family> {
        let split = |line: &str| line.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.to_owned()));
        let helps = self.0.lines().filter_map(|line| split(line.strip_prefix("# HELP ")?));
        let kinds: Vec<_> = self.0.lines().filter_map(|line| split(line.strip_prefix("# TYPE ")?)).collect();
        helps
            .map(|(name, help)| {
                let kind = kinds.iter().find(|(of, _)| *of == name).expect("a type").1.clone();
                let is_sample = |line: &&str| {
                    let after = line.strip_prefix(name.as_str()).unwrap_or_default();
                    let after =
                        ["_bucket", "_sum", "_count"].iter().find_map(|s| after.strip_prefix(s)).unwrap_or(after);
                    after.starts_with('{')
                };
                let sets = self.0.lines().filter(is_sample).filter_map(|line| line.split_once('{')?.1.rsplit_once('}'));
                // No label value contains a quote.
                let labels = sets.flat_map(|(set, _)| set.split('"').step_by(2).map(str::to_owned).collect::<Vec<_>>());
                let labels = labels.map(|label| label.trim_matches([',', '=']).to_owned());
                let labels = labels.filter(|label| !label.is_empty() && label != "le").collect();
                Family { name, kind, help, labels }
            })
            .collect()
    }
}
