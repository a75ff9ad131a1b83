#include "backends/feed/options.h"

#include "config/option_table.h"

namespace relay::feed {

namespace {

using config::FieldType;
using config::fills;
using config::Option;

constexpr Option<Options> kSinkOptions[] = {
    {{.name = "feed",
      .meaning = "the change feed: its table in the schema pgtrickle_changes, which "
                 "create_change_feed() has made together with this pipeline",
      .required = true,
      .plain = true,
      .no_reference = true},
     fills<&Options::feed>},
    {{.name = "rows_per_statement",
      .type = FieldType::integer,
      .default_text = "2000",
      .meaning = "changes that one statement writes at most",
      .min = 1,
      .max = 100000},
     fills<&Options::rows_per_statement>},
    {{.name = "operation_timeout",
      .type = FieldType::duration,
      .default_text = "30s",
      .meaning = "how long one statement may take",
      .min = 0.01},
     fills<&Options::operation_timeout>},
};

constexpr auto kSinkFields = config::fields_of(kSinkOptions);

}  // namespace

config::FieldTable sink_fields() {
  return kSinkFields;
}

Result<Options> parse_options(const config::Values& values) {
  return config::filled<Options>(kSinkOptions, values);
}

}  // namespace relay::feed
