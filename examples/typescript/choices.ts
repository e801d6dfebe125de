// npm run choices -- TARGET: a span and the mean of a text at two layers, as a line of JSON.
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import path from "node:path";

import type { ExtractVectorRequest } from "./generated/actvec/v1/ExtractVectorRequest";
import type { ProtoGrpcType } from "./generated/service";

const definition = loadSync("actvec/v1/service.proto", {
  includeDirs: [path.resolve(__dirname, "../../../proto")],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { actvec } = grpc.loadPackageDefinition(definition) as unknown as ProtoGrpcType;

const [target] = process.argv.slice(2);
const client = new actvec.v1.ActivationVectorService(target, grpc.credentials.createInsecure());

const request: ExtractVectorRequest = {
  document: {
    text: "The tide comes back twice a day.",
    spans: [{ name: "subject", start: 0, end: 8 }],
  },
  settings: {
    layers: [1, 2],
    separate_layers: true,
    pools: ["span:subject", "mean"],
    encoding: "VECTOR_ENCODING_VALUES",
  },
};

client.ExtractVector(request, (error, response) => {
  if (error) {
    console.error(`${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
  } else {
    const { shape, values } = response!.vector!.vector!;
    console.log(JSON.stringify({ shape, values }));
  }
  client.close();
});
