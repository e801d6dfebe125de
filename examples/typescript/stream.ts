// npm start -- TARGET TEXT...: streams texts and prints a line of JSON for each vector.
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import path from "node:path";

import type { ProtoGrpcType } from "./generated/service";
import type { StreamVectorsResponse__Output } from "./generated/actvec/v1/StreamVectorsResponse";

const definition = loadSync("actvec/v1/service.proto", {
  includeDirs: [path.resolve(__dirname, "../../../proto")],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { actvec } = grpc.loadPackageDefinition(definition) as unknown as ProtoGrpcType;

const [target, ...texts] = process.argv.slice(2);
const client = new actvec.v1.ActivationVectorService(target, grpc.credentials.createInsecure());
const call = client.StreamVectors();

call.on("data", (response: StreamVectorsResponse__Output) => {
  for (const result of response.results) {
    if (result.vector?.vector) {
      const { data, dimensions } = result.vector.vector;
      const values = new Float32Array(dimensions);
      values.forEach((_, index) => (values[index] = data.readFloatLE(4 * index)));
      const first = Array.from(values.slice(0, 3));
      console.log(JSON.stringify({ id: result.id, tokens: result.vector.tokens, dimensions, first }));
    } else {
      console.log(JSON.stringify({ id: result.id, error: result.error?.message }));
    }
  }
});
call.on("error", (error: grpc.ServiceError) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});
call.on("end", () => client.close());

// The settings come first; documents carry ids of ours.
call.write({ settings: { mode: "MODE_SHORT", encoding: "VECTOR_ENCODING_FLOAT32" } });
texts.forEach((text, sequence) => {
  call.write({ documents: [{ id: `text-${sequence}`, text, sequence }] });
});
call.end();
