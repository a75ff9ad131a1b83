#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/catalogue.h"
#include "config/tree.h"

namespace relay::cli {

/// One end of pipelines: its name in a configuration, its types, and those of the other end.
struct EndSide {
  std::string_view name;     ///< "source", "sink"
  std::string_view implied;  ///< the type that its plain options imply
  const std::vector<config::EndType>& types;
  const config::Catalogue& catalogue;

  EndSide other() const;
};
EndSide source_side(const config::Catalogue& catalogue);
EndSide sink_side(const config::Catalogue& catalogue);

/// The definitions in $defs for each type of a side: `sink.nats`, what the values of its options
/// may be; `sink.nats.chosen`, which fits a pipeline with this sink; and `sink.nats.keys`, what the
/// keys of such a pipeline say of the sink. `sink.typed` fits a pipeline that names the sink's
/// type.
void define_ends(const EndSide& side, config::Node::Object& definitions);

/// What a pipeline must fit whatever the type of this end is: it has a type, and its keys fit that.
/// The types are tried in turn: side by side, validators would try each of them several times.
config::Node end_condition(const EndSide& side);

/// What the keys that say the type may hold, by key: "sink" and "sink_type".
config::Node::Object type_keys(const EndSide& side);

/// For pipelines in SQL: options of this side that cannot be references are none.
config::Node::Array no_reference_conditions(const EndSide& side);

/// The name in $defs of what fits a pipeline with this type.
std::string chosen_name(std::string_view side, std::string_view type);

}  // namespace relay::cli
