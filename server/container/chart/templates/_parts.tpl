{{- define "image" -}}
{{- $repository := required "image.repository: your registry's image" .Values.image.repository -}}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}{{ else }}{{ $repository }}:{{ .Values.image.tag }}{{ end -}}
{{- end }}

{{- define "labels" -}}
app.kubernetes.io/name: consilium-server
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* "Restricted", by the Pod Security Standards. */}}
{{- define "pod" -}}
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "container" -}}
image: {{ include "image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "home" -}}
volumes:
  - {name: home, persistentVolumeClaim: {claimName: {{ .Release.Name }}-home}}
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- end }}

{{- /* On the node of the server, which has the claim that a job needs: one node at a time may mount it. */}}
{{- define "beside" -}}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "labels" . | nindent 12 }}
            part: server
{{- end }}
