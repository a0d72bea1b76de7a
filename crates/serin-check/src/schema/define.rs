//! Reader of the definition files.
//!
//! ```text
//! kind networking.istio.io v1,v1beta1 VirtualService VirtualService
//! type VirtualService
//!   spec VirtualServiceSpec
//! type VirtualServiceSpec
//!   hosts [string]
//!   host! string            # `!`: must be there
//! refine ServiceSpec type =ClusterIP|NodePort
//! ```

use std::collections::HashMap;

use super::{FieldDef, KindDef, Schemas, Ty, TypeDef};

pub(super) fn read(texts: &[&'static str]) -> Result<Schemas, String> {
    let mut schemas = Schemas::default();
    let mut numbers: HashMap<&'static str, usize> = HashMap::new();
    let lines = || texts.iter().flat_map(|t| t.lines()).filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    for line in lines() {
        if let Some(name) = line.strip_prefix("type ") {
            let name = name.trim();
            if numbers.insert(name, schemas.types.len()).is_some() {
                return Err(format!("type {name} is defined twice"));
            }
            schemas.types.push(TypeDef { name, ..TypeDef::default() });
        }
    }
    let mut current: Option<usize> = None;
    for line in lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or("");
        let mut next = || words.next().ok_or_else(|| format!("`{line}` is too short"));
        let is_field = line.starts_with(' ');
        match first {
            name if is_field => {
                let n = current.ok_or_else(|| format!("`{line}` stands in no type"))?;
                let ty = parse(next()?, &numbers)?;
                let required = name.ends_with('!');
                let name = name.trim_end_matches('!');
                let def: &mut TypeDef = &mut schemas.types[n];
                if required {
                    def.required.push(name);
                }
                if def.fields.insert(name, FieldDef { ty }).is_some() {
                    return Err(format!("{} has {name} twice", def.name));
                }
            }
            "type" => current = numbers.get(next()?).copied(),
            "kind" => {
                let group = match next()? {
                    "core" => "",
                    group => group,
                };
                let versions = next()?.split(',').collect();
                let kind = next()?;
                let ty = next()?;
                let n = *numbers.get(ty).ok_or_else(|| format!("no type {ty}"))?;
                schemas.kinds.entry(kind).or_default().push(KindDef { group, versions, ty: n });
            }
            "refine" => {
                let ty = next()?;
                let field = next()?;
                let new = parse(next()?, &numbers)?;
                let n = *numbers.get(ty).ok_or_else(|| format!("no type {ty}"))?;
                let old = schemas.types[n].fields.get_mut(field).ok_or_else(|| format!("{ty} has no {field}"))?;
                old.ty = new;
            }
            _ => return Err(format!("`{line}` is not understood")),
        }
    }
    Ok(schemas)
}

fn parse(text: &'static str, numbers: &HashMap<&'static str, usize>) -> Result<Ty, String> {
    if let Some(words) = text.strip_prefix('=') {
        return Ok(Ty::Enum(words.split('|').collect()));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return Ok(Ty::List(Box::new(parse(inner, numbers)?)));
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return Ok(Ty::Map(Box::new(parse(inner, numbers)?)));
    }
    Ok(match text {
        "any" => Ty::Any,
        "string" => Ty::Str,
        "duration" => Ty::Duration,
        "quantity" => Ty::Quantity,
        "int" => Ty::Int,
        "number" => Ty::Number,
        "bool" => Ty::Bool,
        "int-or-string" => Ty::IntOrStr,
        name => Ty::Named(*numbers.get(name).ok_or_else(|| format!("no type {name}"))?),
    })
}
