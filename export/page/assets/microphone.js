/** The microphone, opened and led to the worker's port at the rate that the browser has it. */
import { UserError } from "./errors.js";

/** Why there is no microphone to be had, empty where there may be one. */
export function obstacle() {
  if (!isSecureContext) {
    return "Browsers give the microphone to pages from https or from this machine (localhost) "
      + "alone. Recordings can be opened all the same.";
  }
  return navigator.mediaDevices && "AudioWorkletNode" in globalThis ? ""
    : "This browser has no microphone for pages. Recordings can be opened all the same.";
}

/**
 * @param {string} device id, empty for the default.
 * @param {(reason: string) => void} lost is told where it ends by itself.
 * @returns {Promise<{port: MessagePort, rate: number, device: string, close: () => void}>} blocks of
 *   mono samples come from the port (see capture.js).
 * @throws {UserError} it is not allowed, or there is none.
 */
export async function openMicrophone(device, lost) {
  const media = await asked(device);
  const [track] = media.getAudioTracks();
  const context = new AudioContext();
  const close = () => {
    track.onended = null;
    track.stop();
    context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
    const capture = new AudioWorkletNode(context, "capture",
      { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    const { port1, port2 } = new MessageChannel();
    capture.port.postMessage({ port: port1 }, [port1]);
    context.createMediaStreamSource(media).connect(capture);
    await context.resume();
    track.onended = () => lost("The microphone is gone: plug it in and listen again.");
    const { deviceId } = track.getSettings();
    return { port: port2, rate: context.sampleRate, device: deviceId ?? "", close };
  } catch (error) {
    close();
    throw error;
  }
}

/** Microphones by id and name, known once one was allowed. */
export async function microphones() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId);
}

async function asked(device) {
  // As it is: what makes calls pleasant distorts what a model hears.
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false,
    autoGainControl: false, ...(device && { deviceId: { exact: device } }) };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new UserError({
      NotAllowedError: "The microphone was not allowed: allow it for this page in the browser.",
      NotFoundError: "No microphone was found: plug one in.",
      NotReadableError: "The microphone cannot be read: does another program hold it?",
    }[error.name] ?? `The microphone cannot be opened (${error.message || error.name}).`);
  }
}
