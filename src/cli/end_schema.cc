#include "cli/end_schema.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "cli/schema_words.h"
#include "cli/value_schema.h"
#include "config/convert.h"
#include "config/flat_form.h"
#include "config/pipeline_options.h"

namespace relay::cli {

namespace {

using config::EndType;
using config::Field;
using config::Node;
using config::Owner;
using schema::list;
using schema::object;
using schema::reference_to;
using schema::text;
using schema::with_member;

bool is_source(const EndSide& side) {
  return side.name == "source";
}

std::string name_of(const EndSide& side, const EndType& type) {
  return fmt::format("{}.{}", side.name, type.name);
}

std::vector<std::string_view> names_of(const EndType& type) {
  std::vector<std::string_view> names{type.name};
  names.insert(names.end(), type.aliases.begin(), type.aliases.end());
  return names;
}

bool may_hold(const EndSide& side, const EndType& type, const Field& of_pipeline) {
  switch (of_pipeline.also_in) {
    case config::AlsoIn::none:
      break;
    case config::AlsoIn::sink:
      return !is_source(side);
    case config::AlsoIn::outbox_source:
      return is_source(side) && type.reads_outbox;
  }
  return false;
}

/// What the options of an end may be, by each name that it may have inside of the end. An option of
/// the pipeline that the end has too must fit both.
std::map<std::string, Node> options_inside(const EndSide& side, const EndType& type) {
  std::map<std::string, Node> options;
  const auto own = [&](const Field& field) {
    return reference_to(fmt::format("{}/properties/{}", name_of(side, type), field.name));
  };
  for (const Field& field : type.options) {
    for (const std::string_view name : names_of(field)) options.emplace(name, own(field));
  }
  for (const Field& field : config::pipeline_fields()) {
    if (!may_hold(side, type, field)) continue;
    Node of_pipeline = reference_to(fmt::format("options/properties/{}", field.name));
    if (const Field* same = config::find_field(type.options, field.name)) {
      of_pipeline = schema::all_of({own(*same), std::move(of_pipeline)});
    }
    options.insert_or_assign(std::string(field.name), std::move(of_pipeline));
  }
  return options;
}

/// A key of the flat form for an option of an end. With the types of the other end in `lost_to` the
/// key is not this end's.
struct FlatKey {
  std::string key;
  std::string option;  ///< its name inside of the end
  std::vector<const EndType*> lost_to;
};

config::Ends ends_of(const EndSide& side, const EndType& type, const EndType* other) {
  const config::End end{type.name, &type};
  const config::End other_end{other ? other->name : std::string(), other};
  return is_source(side) ? config::Ends{end, other_end} : config::Ends{other_end, end};
}

std::vector<const EndType*> types_that_take(std::string_view key, const EndSide& side,
                                            const EndType& type) {
  const auto own_side = is_source(side) ? Owner::Side::source : Owner::Side::sink;
  std::vector<const EndType*> takers;
  for (const EndType& other : side.other().types) {
    const Owner owner = config::owner_of(key, ends_of(side, type, &other));
    if (owner.side != own_side) takers.push_back(&other);
  }
  return takers;
}

std::vector<FlatKey> flat_keys(const EndSide& side, const EndType& type) {
  const auto options = options_inside(side, type);
  std::vector<std::string_view> prefixes = names_of(type);
  prefixes.insert(prefixes.end(), type.related.begin(), type.related.end());
  std::set<std::string> keys;
  for (const auto& [option, value] : options) {
    for (const std::string_view prefix : prefixes) {
      keys.insert(config::flat_prefix(prefix) + option);
    }
  }
  for (const Field& field : type.options) {
    if (field.plain) keys.insert(std::string(field.name));
  }
  std::vector<FlatKey> flat;
  for (const std::string& key : keys) {
    const Owner alone = config::owner_of(key, ends_of(side, type, nullptr));
    const bool of_pipeline = config::is_pipeline_option(key) || config::is_retention_option(key);
    if (of_pipeline || !options.contains(alone.option)) continue;
    flat.push_back({key, alone.option, types_that_take(key, side, type)});
  }
  return flat;
}

/// Fits a pipeline whose other end is one of these types.
Node chosen_of(const EndSide& other, const std::vector<const EndType*>& types) {
  Node::Array schemas;
  for (const EndType* type : types) {
    schemas.push_back(reference_to(chosen_name(other.name, type->name)));
  }
  return schema::any_of(std::move(schemas));
}

/// `value_of` says for an option's name inside of the end what its value may be, or null. The flat
/// keys hold this as far as they are this end's: in the first part always, in the second one unless
/// the other end is of a type that takes the key.
struct FlatSchemas {
  Node::Object always;
  Node::Array sometimes;
};
template <class ValueOf>
FlatSchemas flat_schemas(const EndSide& side, const EndType& type, const ValueOf& value_of) {
  FlatSchemas schemas;
  std::map<std::vector<const EndType*>, Node::Object> contested;
  for (const FlatKey& flat : flat_keys(side, type)) {
    Node value = value_of(flat.option);
    if (value.is_null()) continue;
    Node::Object& target = flat.lost_to.empty() ? schemas.always : contested[flat.lost_to];
    target.emplace_back(flat.key, std::move(value));
  }
  for (auto& [lost_to, properties] : contested) {
    schemas.sometimes.push_back(
        schema::when(schema::negation(chosen_of(side.other(), lost_to)),
                     object({{"properties", object(std::move(properties))}})));
  }
  return schemas;
}

/// Fits a pipeline that gives this option, under any of its names.
Node given(const EndSide& side, const EndType& type, const Field& field) {
  const auto names = names_of(field);
  Node::Array ways;
  for (const std::string_view name : names) {
    ways.push_back(with_member(side.name, with_member(name, reference_to("given"))));
  }
  for (const FlatKey& flat : flat_keys(side, type)) {
    if (std::ranges::find(names, flat.option) == names.end()) continue;
    Node way = with_member(flat.key, reference_to("given"));
    if (!flat.lost_to.empty()) {
      way.object()->emplace_back("not", chosen_of(side.other(), flat.lost_to));
    }
    ways.push_back(std::move(way));
  }
  return schema::any_of(std::move(ways));
}

/// The options that must be given: each that is required, and one of each mark.
void add_required(const EndSide& side, const EndType& type, Node::Array& conditions) {
  std::map<std::string_view, Node::Array> marks;
  for (const Field& field : type.options) {
    if (field.required) conditions.push_back(given(side, type, field));
    if (!field.one_of.empty()) marks[field.one_of].push_back(given(side, type, field));
  }
  for (auto& [mark, ways] : marks) {
    conditions.push_back(object({{"oneOf", list(std::move(ways))}}));
  }
}

Node keys_schema(const EndSide& side, const EndType& type) {
  const auto options = options_inside(side, type);
  const Node type_name = schema::one_of_names_or_null(names_of(type));
  Node::Object inside{{"type", type_name}};
  for (const auto& [name, value] : options) inside.emplace_back(name, value);
  FlatSchemas flat =
      flat_schemas(side, type, [&](const std::string& option) { return options.at(option); });
  flat.always.emplace_back(fmt::format("{}_type", side.name), type_name);
  flat.always.emplace_back(side.name, object({{"properties", object(std::move(inside))},
                                              {"additionalProperties", Node(false, {})}}));
  add_required(side, type, flat.sometimes);
  Node::Object keys{{"properties", object(std::move(flat.always))}};
  if (!flat.sometimes.empty()) keys.emplace_back("allOf", list(std::move(flat.sometimes)));
  return object(std::move(keys));
}

/// Fits a pipeline whose type of this end is written, as this schema has it.
Node written_type(const EndSide& side, const Node& name) {
  return schema::any_of({with_member(fmt::format("{}_type", side.name), name),
                         with_member(side.name, with_member("type", name))});
}

std::string typed_name(const EndSide& side) {
  return fmt::format("{}.typed", side.name);
}

Node chosen_schema(const EndSide& side, const EndType& type) {
  Node chosen = written_type(side, object({{"enum", schema::texts(names_of(type))}}));
  if (type.name != side.implied) return chosen;
  Node::Array plain;
  for (const Field& field : type.options) {
    if (field.plain) plain.push_back(object({{"required", list({text(field.name)})}}));
  }
  if (plain.empty()) return chosen;
  chosen.object()->front().second.array()->push_back(
      object({{"not", reference_to(typed_name(side))}, {"anyOf", list(std::move(plain))}}));
  return chosen;
}

}  // namespace

EndSide source_side(const config::Catalogue& catalogue) {
  return {"source", config::kImpliedSource, catalogue.sources, catalogue};
}

EndSide sink_side(const config::Catalogue& catalogue) {
  return {"sink", config::kImpliedSink, catalogue.sinks, catalogue};
}

EndSide EndSide::other() const {
  return name == "source" ? sink_side(catalogue) : source_side(catalogue);
}

std::string chosen_name(std::string_view side, std::string_view type) {
  return fmt::format("{}.{}.chosen", side, type);
}

void define_ends(const EndSide& side, Node::Object& definitions) {
  definitions.emplace_back(typed_name(side),
                           written_type(side, object({{"type", text("string")}})));
  for (const EndType& type : side.types) {
    definitions.emplace_back(name_of(side, type), properties_of(type.options, true));
    definitions.emplace_back(chosen_name(side.name, type.name), chosen_schema(side, type));
    definitions.emplace_back(name_of(side, type) + ".keys", keys_schema(side, type));
  }
}

Node end_condition(const EndSide& side) {
  Node condition =
      with_member(fmt::format("{}_type", side.name), object({{"type", text("string")}}));
  for (auto type = side.types.rbegin(); type != side.types.rend(); ++type) {
    condition = object({{"if", reference_to(chosen_name(side.name, type->name))},
                        {"then", reference_to(name_of(side, *type) + ".keys")},
                        {"else", std::move(condition)}});
  }
  return condition;
}

Node::Object type_keys(const EndSide& side) {
  std::vector<std::string_view> names;
  for (const EndType& type : side.types) {
    for (const std::string_view name : names_of(type)) names.push_back(name);
  }
  const Node name = schema::one_of_names_or_null(names);
  return {{fmt::format("{}_type", side.name), name},
          {std::string(side.name), object({{"type", list({text("object"), text("null")})},
                                           {"properties", object({{"type", name}})}})}};
}

Node::Array no_reference_conditions(const EndSide& side) {
  Node::Array conditions;
  for (const EndType& type : side.types) {
    Node::Object inside;
    for (const Field& field : type.options) {
      if (!field.no_reference) continue;
      for (const std::string_view name : names_of(field)) {
        inside.emplace_back(name, schema::negation(reference_to("braces")));
      }
    }
    if (inside.empty()) continue;
    FlatSchemas flat = flat_schemas(side, type, [&](const std::string& option) {
      const Node* value = config::find_member(inside, option);
      return value ? *value : Node();
    });
    flat.always.emplace_back(side.name, object({{"properties", object(std::move(inside))}}));
    Node::Object keys{{"properties", object(std::move(flat.always))}};
    if (!flat.sometimes.empty()) keys.emplace_back("allOf", list(std::move(flat.sometimes)));
    conditions.push_back(
        schema::when(reference_to(chosen_name(side.name, type.name)), object(std::move(keys))));
  }
  return conditions;
}

}  // namespace relay::cli
