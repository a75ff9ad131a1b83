#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/message.h"
#include "core/record.h"
#include "envelope/change_pairing.h"
#include "envelope/changes.h"
#include "envelope/format.h"
#include "envelope/json_reader.h"
#include "envelope/message_id.h"
#include "envelope/message_writer.h"
#include "envelope/output.h"
#include "envelope/plan.h"
#include "envelope/refusals.h"
#include "envelope/route_renderer.h"
#include "envelope/routed_changes.h"

namespace relay::envelope {

/// Makes a batch's messages. Keeps its buffers from batch to batch.
class BatchEncoder {
 public:
  explicit BatchEncoder(const Plan& plan)
      : plan_(plan),
        renderer_(plan, reader_, refusals_),
        changes_(plan, reader_, refusals_, renderer_),
        writer_(plan) {}
  BatchEncoder(const BatchEncoder&) = delete;
  BatchEncoder& operator=(const BatchEncoder&) = delete;

  MessageBatch encode(RecordBatch records);

 private:
  // Which part of its record the present delta is.
  struct Place {
    std::int64_t first_ordinal = 0;
    int part = 0;
    bool final = true;
  };

  void encode_record();
  void encode_delta(const Delta& delta);
  void encode_whole(const Delta& delta, std::string_view op, const SharedError& refused);
  void encode_row_change(const RowChange& change);
  void encode_event(const Event& event);
  void wrap_event(Message& message, const Event& event);
  void add_tombstone(const Route& route, const Change& change);
  void emit_changes(std::int64_t max_rows);
  void emit_piece(const Piece& piece);
  void emit_row(const Change& change);
  void emit_state_without_rows();
  void refuse_record(const SharedError& why);

  bool goes_whole(const Delta& delta) const;
  bool has_rows(const Delta& delta) const;
  std::string_view op_of_whole(const Delta& delta, bool& readable);
  OrdinalRange ordinals(const Change& change) const;
  RowPrinter printer() const;
  SharedError malformed(std::string_view what);

  const Plan& plan_;
  JsonReader reader_;
  Refusals refusals_;
  RouteRenderer renderer_;
  ChangePairing pairing_;
  RoutedChanges changes_;
  MessageWriter writer_;
  Rows rows_;
  Output* output_ = nullptr;
  Place place_;
  DeltaSplitter splitter_;
  std::vector<std::uint32_t> inserted_;
  std::vector<std::uint32_t> deleted_;
  std::string body_;
};

}  // namespace relay::envelope
