// The lines to try in a terminal: ready to be pasted, whatever the id.

export function curlLine(id) {
  // Without indentation: a narrow page would break its lines there.
  const message = [
    '{"action":"upload_progress","payload":{', `"upload_id":${JSON.stringify(id)},"status":"working","stage":"looking",`,
    '"progress_percent":40,"message":"Looking closely",', '"error_message":null,"description_audit_score":null}}',
  ].join('\n')
  // curl would leave out a segment that is "." or "..", as browsers do.
  const asIs = /^\.\.?$/.test(id) ? '--path-as-is ' : ''
  return [
    `curl ${asIs}${quote(`${location.origin}/v1/uploads/${encodeURIComponent(id)}/messages`)}`,
    `-H 'Authorization: Bearer dev' -H 'Content-Type: application/json'`,
    `-d ${quote(message)}`,
  ].join(' \\\n  ')
}

export function shoalLine(id) {
  return [
    `bin/shoal publish --dev --url ${quote(location.origin)}`,
    `--status working --stage looking --percent 40`,
    `--message 'Looking closely' -- ${quote(id)}`,
  ].join(' \\\n  ')
}

// quote makes one word of a text for a POSIX shell. What needs no quotes gets none.
function quote(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}
