// The sink for `check`: with `looks_only` it does not create the inbox.

#include "backends/pg_inbox/sink.h"

namespace relay::pg_inbox {

Inspection InboxSink::inspect(const std::optional<std::string>&, std::stop_token stop) {
  Inspection found = Inspection::of(open(std::move(stop)));
  if (target_ && target_->columns.empty()) {
    found.notes.push_back("the inbox " + options_.inbox_name + options_.inbox_table +
                          " is made by the relay");
  }
  close();
  return found;
}

}  // namespace relay::pg_inbox
