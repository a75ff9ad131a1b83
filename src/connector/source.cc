#include "connector/source.h"

namespace relay {

Result<RecordBatch> Source::read_range(std::int64_t, std::int64_t, const std::string&,
                                       const ReadLimits&, std::stop_token) {
  return fail(ErrorClass::misconfigured, "no_replay", "this kind of source cannot be replayed",
              "replay works on outboxes; other sources are replayed by their broker");
}

}  // namespace relay
